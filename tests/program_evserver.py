#!/usr/bin/env python3
"""What onefd-evserver promises, in TAP.

Usage: program_evserver.py ONEFD_EVSERVER [RUNNER...]

RUNNER is put before the server: valgrind and its options. Started by faulty.sh, it
looks at what happens while a file is held by its disk, and at nothing else.
"""
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile

import faulty
import pages
from faulty import Disk
from tap import PATIENCE, Child, run, until

ROOT = tempfile.mkdtemp(prefix="onefd-evserver.")


class Server(Child):
    def __init__(self, *options, root=ROOT):
        self.process = subprocess.Popen(
            [*sys.argv[2:], sys.argv[1], *options, root],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line + self.process.stderr.read()
        self.port = int(line.rsplit(":", 1)[1])

    def connect(self, **options):
        return Client(self.port, **options)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def allow_no_more_descriptors(self):
        fds = {int(fd) for fd in os.listdir(f"/proc/{self.process.pid}/fd")}
        # The lowest that is free, for a runner may have some high up.
        limit = min(set(range(len(fds) + 1)) - fds)
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def stop(self, signo=signal.SIGTERM):
        self.process.send_signal(signo)
        self.gone()

    def gone(self):
        said = self.process.communicate(timeout=PATIENCE)[1]
        assert (self.process.returncode, said) == (0, ""), (self.process.returncode, said)

    def __exit__(self, kind, *_):
        super().__exit__(kind)
        if self.process.returncode is None:
            self.stop()


class Client:
    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def ask(self, path):
        self.socket.sendall(b"GET " + os.fsencode(path) + b"\n")

    def answer(self):
        """The bytes of the file, or the line that says why not."""
        line = self.file.readline().decode()
        if not line.startswith("OK "):
            return line
        return self.file.read(int(line[3:]))

    def get(self, path):
        self.ask(path)
        return self.answer()

    def silent(self, seconds):
        return not select.select([self.socket], [], [], seconds)[0]

    def close(self):
        self.file.close()
        self.socket.close()


def make(name, size):
    with open(os.path.join(ROOT, name), "wb") as file:
        file.write(content := os.urandom(size))
    return content


# ---- what is served -----------------------------------------------------------


def many_clients_get_every_byte(*options):
    files = {f"f{size}": make(f"f{size}", size)
             for size in (0, 1, 65535, 65536, 65537, 1000000, 20000000)}
    with Server(*options) as server:
        clients = [server.connect() for _ in range(24)]
        for i, client in enumerate(clients):
            for name in list(files)[i % 7:]:
                client.ask(name)
        for i, client in enumerate(clients):
            for name in list(files)[i % 7:]:
                assert client.answer() == files[name], name


def blocking_serves_the_same():
    many_clients_get_every_byte("--blocking")


def lines_come_in_any_pieces():
    content = make("pieces", 10)
    with Server() as server:
        client = server.connect()
        for byte in b"GET /pieces\r\nGET pie":
            client.socket.sendall(bytes([byte]))
        assert client.answer() == content
        client.socket.sendall(b"ces\nGET pieces\nHELP\n")
        assert client.answer() == content
        assert client.answer() == content
        assert client.answer() == "ERROR not understood\n"
        client.socket.sendall(b"GET pieces\0x\nGET pieces\n")
        assert client.answer() == "ERROR not understood\n"
        assert client.answer() == content


def line_without_end_is_hung_up_on():
    with Server() as server:
        client = server.connect()
        try:
            client.socket.sendall(b"x" * 100000)
            assert client.file.read(1) == b""
        except ConnectionError:
            pass
        assert server.connect().get("none").startswith("ERROR ")


def nothing_outside_of_the_root_is_served():
    content = make("inside", 100)
    os.mkdir(os.path.join(ROOT, "folder"))
    os.mkfifo(os.path.join(ROOT, "fifo"))
    os.symlink("/etc/passwd", os.path.join(ROOT, "out"))
    os.symlink("..", os.path.join(ROOT, "folder", "up"))
    os.symlink("../inside", os.path.join(ROOT, "folder", "in"))
    with Server() as server:
        client = server.connect()
        for path in ("../" * 20 + "etc/passwd", "/../etc/passwd", "/etc/passwd", "out",
                     "folder/../../etc/passwd", "folder/up/../etc/passwd", "folder", "fifo",
                     "", "/", ".", "none", "x" * 300, "folder/none"):
            said = client.get(path)
            assert isinstance(said, str) and said.startswith("ERROR "), (path, said)
        for path in ("inside", "/inside", "//inside", "folder/in", "folder/up/inside",
                     "folder/../inside"):
            assert client.get(path) == content, path


# ---- clients ------------------------------------------------------------------


def clients_that_hang_up_midway_cost_nothing():
    make("large", 30000000)
    with Server() as server:
        other = server.connect()
        other.get("none")
        before = server.descriptors()
        for length in (0, 1, 10000, 3000000):
            for _ in range(4):
                client = server.connect()
                client.ask("large")
                client.file.read(length)
                client.close()
        assert len(other.get("large")) == 30000000
        until(lambda: server.descriptors() == before)


def slow_reader_gets_every_byte_and_holds_up_nobody():
    content = make("long", 30000000)
    with Server() as server:
        slow = server.connect(receive_buffer=4096)
        slow.ask("long")
        for _ in range(3):
            assert server.connect().get("long") == content
        assert slow.answer() == content


def idle_clients_are_hung_up_on():
    with Server("--timeout=1") as server:
        clients = [server.connect() for _ in range(3)]
        clients[1].socket.sendall(b"GET no end")
        clients[2].get("none")
        for client in clients:
            assert client.file.read() == b""


def reader_that_stops_is_hung_up_on():
    make("stuck", 50000000)
    with Server("--timeout=1") as server:
        client = server.connect(receive_buffer=4096)
        client.get("none")
        before = server.descriptors()
        client.ask("stuck")
        until(lambda: server.descriptors() < before)


def more_clients_than_allowed_wait_their_turn():
    content = make("turn", 1000)
    with Server("--clients=2") as server:
        first = [server.connect() for _ in range(2)]
        for client in first:
            assert client.get("turn") == content
        third = server.connect()
        third.ask("turn")
        assert first[0].get("turn") == content and third.silent(0)
        first[1].close()
        assert third.answer() == content
        fourth = server.connect()
        fourth.ask("turn")
        assert first[0].get("turn") == content and fourth.silent(0)
        first[0].close()
        assert fourth.answer() == content


def client_without_a_descriptor_waits_for_no_more_than_one():
    content, large = make("turn", 1000), make("large", 8000000)
    with Server("--timeout=86400") as server:
        first = [server.connect(receive_buffer=4096) for _ in range(2)]
        for client in first:
            client.ask("large")
            client.file.read(1)
        server.allow_no_more_descriptors()
        last = server.connect()
        for client in first:
            assert b"O" + client.file.readline() + client.file.read(len(large)) == \
                b"OK %d\n" % len(large) + large
        assert last.get("turn") == content


def stopped_with_clients_at_work_ends_in_order():
    make("work", 50000000)
    for signo in (signal.SIGTERM, signal.SIGINT):
        with Server() as server:
            clients = [server.connect(receive_buffer=4096) for _ in range(20)]
            for client in clients:
                client.ask("work")
            for client in clients:
                client.file.read(1)
            server.stop(signo)


def wrong_usage_is_status_2():
    for arguments in ("", "a b", "--port=65536 .", "--port=x .", "--clients=0 .",
                      "--timeout=0 .", "--nonsense ."):
        status = subprocess.run([sys.argv[1], *arguments.split()], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, check=False).returncode
        assert status == 2, (arguments, status)
    for arguments in ("/nonexistent", "/etc/passwd"):
        end = subprocess.run([sys.argv[1], arguments], stderr=subprocess.PIPE, check=False)
        assert end.returncode == 1 and end.stderr.count(b"\n") == 1, end


# ---- a disk that takes its time -------------------------------------------------


def held_root():
    return os.path.dirname(faulty.directory())


def forget(name):
    pages.forget(os.path.join(faulty.directory(), name))


def make_quick():
    with open(os.path.join(held_root(), "quick"), "wb") as file:
        file.write(b"quick" * 100000)
    return b"quick" * 100000


def serve_held(*options):
    return Server(*options, root=held_root())


def cold_file_does_not_stall_the_others():
    quick = make_quick()
    with Disk() as disk, serve_held() as server:
        forget("a")
        disk.order("hold", "a", 0, 1 << 26)
        patient = [server.connect() for _ in range(8)]
        for client in patient:
            client.ask("fuse/a")
        disk.wait_held()
        for _ in range(20):
            assert server.connect().get("quick") == quick
        assert patient[0].file.readline() == b"OK 67108864\n" and patient[0].silent(0)
        disk.order("release")
        contents = {patient[0].file.read(1 << 26), *(client.answer() for client in patient[1:])}
        assert len(contents) == 1 and len(contents.pop()) == 1 << 26


def blocking_it_does():
    """What the test above would see, were it not for onefd."""
    quick = make_quick()
    with Disk() as disk, serve_held("--blocking") as server:
        forget("a")
        disk.order("hold", "a", 0, 1 << 26)
        patient, other = server.connect(), server.connect()
        patient.ask("fuse/a")
        disk.wait_held()
        other.ask("quick")
        assert other.silent(0.3)
        disk.order("release")
        assert other.answer() == quick and len(patient.answer()) == 1 << 26


def slow_reader_stops_the_reads():
    with Disk() as disk, serve_held() as server:
        forget("b")
        disk.order("hold", "b", 48 << 20, 1 << 26)
        slow = server.connect(receive_buffer=4096)
        slow.ask("fuse/b")
        for _ in range(20):
            server.connect().get("none")
        assert not disk.held(0.3)
        line = slow.file.readline()
        start = slow.file.read(48 << 20)
        disk.wait_held()
        disk.order("release")
        assert line == b"OK 67108864\n" and len(start + slow.file.read(16 << 20)) == 1 << 26


def client_that_goes_while_its_file_is_read_costs_nothing():
    quick = make_quick()
    with Disk() as disk, serve_held() as server:
        other = server.connect()
        other.get("none")
        before = server.descriptors()
        forget("a")
        disk.order("hold", "a", 0, 1 << 26)
        for _ in range(4):
            client = server.connect()
            client.ask("fuse/a")
            client.file.readline()
            client.close()
        disk.wait_held()
        assert other.get("quick") == quick
        disk.order("release")
        until(lambda: server.descriptors() == before)


def time_that_the_disk_takes_is_not_the_client_s():
    with Disk() as disk, serve_held("--timeout=1") as server:
        forget("a")
        disk.order("hold", "a", 0, 1 << 26)
        patient = server.connect()
        patient.ask("fuse/a")
        disk.wait_held()
        assert server.connect().file.read() == b""  # a second has gone by
        disk.order("release")
        assert len(patient.answer()) == 1 << 26


def read_that_fails_hangs_up():
    with Disk() as disk, serve_held() as server:
        forget("a")
        disk.order("fail", "a", 1 << 20, 1 << 26, 5)
        client = server.connect()
        client.ask("fuse/a")
        assert client.file.readline() == b"OK 67108864\n"
        assert len(client.file.read()) < 1 << 26
        assert server.connect().get("none").startswith("ERROR ")


def stopped_while_files_are_held_ends_in_order():
    with Disk() as disk, serve_held() as server:
        forget("a")
        disk.order("hold", "a", 0, 1 << 26)
        clients = [server.connect() for _ in range(4)]
        for client in clients:
            client.ask("fuse/a")
        disk.wait_held()
        server.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.file.read()  # they are let go at once
        assert server.process.poll() is None
        disk.order("release")
        server.gone()


SERVED = (
    many_clients_get_every_byte, blocking_serves_the_same, lines_come_in_any_pieces,
    line_without_end_is_hung_up_on, nothing_outside_of_the_root_is_served,
    clients_that_hang_up_midway_cost_nothing, slow_reader_gets_every_byte_and_holds_up_nobody,
    idle_clients_are_hung_up_on, reader_that_stops_is_hung_up_on,
    more_clients_than_allowed_wait_their_turn,
    client_without_a_descriptor_waits_for_no_more_than_one,
    stopped_with_clients_at_work_ends_in_order,
    wrong_usage_is_status_2)

HELD = (
    cold_file_does_not_stall_the_others, blocking_it_does, slow_reader_stops_the_reads,
    client_that_goes_while_its_file_is_read_costs_nothing,
    time_that_the_disk_takes_is_not_the_client_s, read_that_fails_hangs_up,
    stopped_while_files_are_held_ends_in_order)


status = run(HELD if faulty.SOCKET else SERVED)
subprocess.run(["rm", "-rf", ROOT], check=True)
sys.exit(status)
