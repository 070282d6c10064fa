#!/usr/bin/env python3
"""What onefd-fuse promises of open files and their locks, in TAP.

Usage: program_fuse_data.py ONEFD_FUSE

Over each file system of ONEFD_TEST_DIRS, with --direct too. By itself also over an
overlay, which is no local file system to the daemon: what may ask a server is a worker's.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

from fuse_mounts import abort, begin, end_daemon, mounted
from tap import PATIENCE, Skip, find_places, needs, run, same, until

DAEMON = os.path.realpath(sys.argv[1])
TOP = tempfile.mkdtemp(prefix="onefd-fuse.")
F_OFD_SETLK, F_OFD_SETLKW = 37, 38
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64


def error_of(function, *args):
    try:
        function(*args)
    except OSError as error:
        return error.errno
    return 0


class Mount:
    """A daemon over a directory of @place: source and path are its two sides."""

    def __init__(self, place, *options, source=None):
        self.place = place
        self.top = tempfile.mkdtemp(prefix="onefd-fuse.", dir=place)
        os.chmod(self.top, 0o755)
        self.source, self.path = source or self.top + "/source", self.top + "/mount"
        os.makedirs(self.source, exist_ok=True)
        os.chmod(self.source, 0o777)
        os.mkdir(self.path)
        self.options = options
        self.peers = []

    def __enter__(self):
        self.said = tempfile.NamedTemporaryFile("w+", dir=TOP, encoding="utf-8")
        self.process = subprocess.Popen(
            [DAEMON, "-f", "--stats", *self.options, "-o", "allow_other,source=" + self.source, self.path],
            stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said)
        until(lambda: mounted(self.path) or self.process.poll() is not None)
        return self

    def peer(self):
        self.peers.append(Peer(self))
        return self.peers[-1]

    def above(self, name):
        return f"{self.path}/{name}"

    def below(self, name):
        return f"{self.source}/{name}"

    def count(self, pattern):
        """A number of its report."""
        before = os.path.getsize(self.said.name)
        self.process.send_signal(signal.SIGUSR1)
        until(lambda: re.search("longest:.*\n", self.text(before)))
        return int(re.search(pattern, self.text(before)).group(1))

    def text(self, begin=0):
        with open(self.said.name, encoding="utf-8") as file:
            file.seek(begin)
            return file.read()

    def gone(self):
        same("status: " + self.text(), self.process.wait(PATIENCE), 0)
        assert not mounted(self.path), "it is still mounted"

    def __exit__(self, kind, *_):
        for peer in self.peers:
            peer.kill()
        try:
            if kind is None and self.process.returncode is None:
                subprocess.run(["umount", self.path], check=True)
                self.gone()
        finally:
            end_daemon(self.process, self.path)
            self.said.close()
            shutil.rmtree(self.top)


class Freezer:
    """Holds up all writes to the source's file system, if that is an image of the tests."""

    def __init__(self, mount):
        with open("/proc/self/mountinfo", encoding="ascii") as file:
            fields = [line.split() for line in file]
        if not any(line[4] == mount.place and " - ext4 /dev/loop" in " ".join(line) for line in fields):
            raise Skip("no ext4 to be frozen")
        if mount.options:
            raise Skip("io_submit(2) waits for a frozen file system, and the loop with it")
        self.mount = mount

    def holds(self):
        tasks = f"/proc/{self.mount.process.pid}/task"
        return any("percpu_rwsem_wait" in content(f"{tasks}/{task}/wchan").decode() for task in os.listdir(tasks))

    def __enter__(self):
        self.fd = os.open(self.mount.source, os.O_RDONLY)
        fcntl.ioctl(self.fd, FIFREEZE, 0)

    def __exit__(self, *_):
        fcntl.ioctl(self.fd, FITHAW, 0)
        os.close(self.fd)


class Peer:
    """Another process: does what it is told, one call after the other."""

    def __init__(self, mount):
        orders, answers = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            for peer in filter(lambda peer: peer.pid, mount.peers):
                os.close(peer.orders)
                os.close(peer.answers)
            os.close(orders[1])
            os.close(answers[0])
            try:
                Peer.obey(orders[0], answers[1])
            finally:
                os._exit(0)
        os.close(orders[0])
        os.close(answers[1])
        self.orders, self.answers = orders[1], answers[0]

    @staticmethod
    def obey(orders, answers):
        def alarmed(*_):
            raise InterruptedError(errno.EINTR, "a signal")

        signal.signal(signal.SIGUSR1, alarmed)
        while order := os.read(orders, 4096):
            try:
                said = repr(eval(order, globals()))
            except OSError as error:
                said = repr(-error.errno)
            os.write(answers, said.encode())

    def start(self, order):
        os.write(self.orders, order.encode())

    def end(self):
        assert select.select([self.answers], [], [], PATIENCE)[0], "it does not return"
        return eval(os.read(self.answers, 1 << 16))

    def do(self, order):
        self.start(order)
        return self.end()

    def has_answered(self):
        return bool(select.select([self.answers], [], [], 0)[0])

    def state(self, name):
        with open(f"/proc/{self.pid}/{name}", encoding="ascii") as file:
            return file.read()

    def waits(self):
        """Asleep within a request to the daemon."""
        until(lambda: "request_wait_answer" in self.state("wchan") or self.has_answered())
        assert not self.has_answered(), self.end()

    def open(self, path, flags=os.O_RDWR):
        return self.do(f"os.open({path!r}, {flags})")

    def lock(self, fd, kind, start=0, length=0, command=fcntl.F_SETLK):
        return self.do(lock_order(fd, kind, start, length, command))

    def start_lock(self, fd, kind, start=0, length=0, command=fcntl.F_SETLKW):
        self.start(lock_order(fd, kind, start, length, command))

    def test(self, fd, kind, start=0, length=0):
        """(type, start, length, pid) of what is in the way."""
        said = struct.unpack(FLOCK, self.do(lock_order(fd, kind, start, length, fcntl.F_GETLK)))
        return said[0], said[2], said[3], said[4]

    def flock(self, fd, operation):
        return self.do(f"fcntl.flock({fd}, {operation})")

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.orders)
            os.close(self.answers)
        self.pid = 0


FLOCK = "hhqqi4x"
READ, WRITE, UNLOCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SHARED, ALONE, NOT_NOW, FREE = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN
BUSY = -errno.EAGAIN


def lock_order(fd, kind, start, length, command):
    return f"fcntl.fcntl({fd}, {command}, {struct.pack(FLOCK, kind, 0, start, length, 0)!r})"


def got(answer):
    return isinstance(answer, bytes)


def make(path, content=b""):
    with open(path, "wb") as file:
        file.write(content)


def content(path):
    with open(path, "rb") as file:
        return file.read()


# ---- writing -----------------------------------------------------------------------------


def appends_of_all_sides_are_kept(mount):
    make(mount.below("log"))
    peers = [mount.peer() for _ in range(4)]
    for i, peer in enumerate(peers):
        path = mount.above("log") if i else mount.below("log")
        fd = peer.open(path, os.O_WRONLY | os.O_APPEND)
        peer.start(f"[os.write({fd}, b'{i} %04d\\n' % j) for j in range(500)][-1]")
    for peer in peers:
        same("written", peer.end(), 7)
    lines = content(mount.below("log")).decode().splitlines()
    same("lines", sorted(lines), [f"{i} {j:04}" for i in range(4) for j in range(500)])
    same("above", content(mount.above("log")), content(mount.below("log")))


def a_mapped_page_of_a_file_that_appends_goes_to_its_place(mount):
    fd = os.open(mount.above("file"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"." * 5000)
    with mmap.mmap(fd, 0) as memory:
        memory[10:13] = memory[4990:4993] = b"HEY"
        memory.flush()
        os.write(fd, b"end")
        memory[20:22] = b"ho"
    os.close(fd)
    expected = b"." * 10 + b"HEY" + b"." * 7 + b"ho" + b"." * 4968 + b"HEY" + b"." * 7 + b"end"
    same("below", content(mount.below("file")), expected)


def append_set_later_is_obeyed(mount):
    make(mount.below("file"), b"12345678")
    fd = os.open(mount.above("file"), os.O_RDWR)
    os.write(fd, b"ab")
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    with open(mount.below("file"), "ab") as file:
        file.write(b"9")
    os.write(fd, b"cd")
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.pwrite(fd, b"x", 4)
    os.close(fd)
    same("below", content(mount.below("file")), b"ab34x6789cd")


def a_file_to_append_to_only_is_appended_to(mount):
    make(mount.below("log"), b"first\n")
    if subprocess.run(["chattr", "+a", mount.below("log")], stderr=subprocess.DEVNULL, check=False).returncode:
        raise Skip("no chattr +a here")
    try:
        with open(mount.above("log"), "ab") as file:
            file.write(b"second\n")
        same("below", content(mount.below("log")), b"first\nsecond\n")
        same("truncation", error_of(os.open, mount.above("log"), os.O_WRONLY | os.O_TRUNC), errno.EPERM)
    finally:
        subprocess.run(["chattr", "-a", mount.below("log")], check=True)


def what_a_mapping_changed_is_there_after_close(mount):
    make(mount.below("file"), bytes(100000))
    fd = os.open(mount.above("file"), os.O_RDWR)
    with mmap.mmap(fd, 0) as memory:
        os.close(fd)
        for at in range(0, 100000, 1000):
            memory[at] = at // 1000 + 1
    seen = content(mount.below("file"))
    same("bytes", [seen[at] for at in range(0, 100000, 1000)], list(range(1, 101)))


def an_unlinked_file_is_written_read_and_mapped(mount):
    fd = os.open(mount.above("file"), os.O_RDWR | os.O_CREAT)
    os.unlink(mount.above("file"))
    same("below", os.listdir(mount.source), [])
    os.write(fd, b"x" * 10000)
    with mmap.mmap(fd, 0) as memory:
        memory[5000] = 121
        memory.flush()
    same("byte", os.pread(fd, 3, 4999), b"xyx")
    os.ftruncate(fd, 5001)
    same("size", os.fstat(fd).st_size, 5001)
    same("read", os.pread(fd, 10000, 0), b"x" * 5000 + b"y")
    os.close(fd)


def a_full_disk_is_as_it_is_below(mount):
    small = mount.top + "/small"
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", small], check=True)
    try:
        with Mount(mount.top, *mount.options, source=small) as inner:
            for path in inner.below, inner.above:
                fd = os.open(path("file"), os.O_WRONLY | os.O_CREAT)
                same("short", os.write(fd, bytes(1 << 21)), 1 << 20)
                same("full", error_of(os.write, fd, b"x"), errno.ENOSPC)
                os.close(fd)
                os.unlink(path("file"))
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def a_file_too_large_for_the_daemon_is_an_error(mount):
    resource.prlimit(mount.process.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    fd = os.open(mount.above("file"), os.O_WRONLY | os.O_CREAT)
    same("short", os.pwrite(fd, b"123456", (1 << 20) - 2), 2)
    same("beyond", error_of(os.pwrite, fd, b"x", 1 << 20), errno.EFBIG)
    os.close(fd)
    os.unlink(mount.above("file"))


def large_writes_go_through_pipes(mount):
    size = (8 << 20) + 12345
    written = random.randbytes(size)
    fd = os.open(mount.above("file"), os.O_WRONLY | os.O_CREAT)
    for at in range(0, size, 3 << 20):
        piece = written[at : at + (3 << 20)]
        same("written", os.write(fd, piece), len(piece))
    os.close(fd)
    assert content(mount.below("file")) == written, "it is not what was written"
    assert mount.count(r"writes spliced (\d+)") >= 4, "not many were spliced"
    os.unlink(mount.above("file"))


# ---- opening ------------------------------------------------------------------------------


def user(mount):
    """A peer without privilege, in the mount, for it may not search what is above."""
    peer = mount.peer()
    peer.do(f"os.chdir({mount.path!r})")
    peer.do("os.setgroups([]) or os.setresgid(1234, 1234, 1234) or os.setresuid(1000, 1000, 1000)")
    return peer


def a_new_file_is_the_callers(mount):
    peer = user(mount)
    peer.do("os.umask(0o027)")
    fd = peer.do("os.open('file', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)")
    same("written", peer.do(f"os.write({fd}, b'x')"), 1)
    st = os.stat(mount.below("file"))
    same("mode and owner", (st.st_mode & 0o7777, st.st_uid, st.st_gid), (0o640, 1000, 1234))
    same("again", peer.do("os.open('file', os.O_CREAT | os.O_EXCL)"), -errno.EEXIST)
    fd = peer.do("os.open('readonly', os.O_RDWR | os.O_CREAT, 0o400)")
    same("written", peer.do(f"os.write({fd}, b'x')"), 1)


def of_many_who_create_one_is_first(mount):
    peers = [mount.peer() for _ in range(6)]
    for i in range(100):
        for j, peer in enumerate(peers):
            path = (mount.above if j else mount.below)(f"file{i}")
            peer.start(f"os.close(os.open({path!r}, os.O_RDWR | os.O_CREAT | os.O_EXCL))")
        same("answers", sorted(map(str, (peer.end() for peer in peers))), ["-17"] * 5 + ["None"])


def who_does_not_insist_opens_what_another_has_made(mount):
    peers = [mount.peer() for _ in range(6)]
    for i in range(100):
        for j, peer in enumerate(peers):
            path = (mount.above if j else mount.below)(f"file{i}")
            peer.start(f"os.close(os.open({path!r}, os.O_RDWR | os.O_CREAT, 0o644))")
        same("answers", {peer.end() for peer in peers}, {None})


def no_one_gets_by_creation_what_he_may_not_open(mount):
    """The name is made below, and private, while it is created above."""
    peer, maker = user(mount), mount.peer()
    for i in range(200):
        path = f"file{i}"
        maker.start(f"os.close(os.open({mount.below(path)!r}, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))")
        peer.start(f"os.open({path!r}, os.O_RDWR | os.O_CREAT, 0o644)")
        maker.end()
        fd = peer.end()
        assert fd >= 0 or fd in (-errno.EACCES, -errno.ESTALE), fd
        if fd >= 0:
            same("owner", peer.do(f"os.fstat({fd}).st_uid"), 1000)
            peer.do(f"os.close({fd})")


def a_symlink_is_not_followed_when_told_so(mount):
    make(mount.below("file"))
    os.symlink("file", mount.below("link"))
    os.symlink("nowhere", mount.below("dangling"))
    for name in "link", "dangling":
        same(name, error_of(os.open, mount.above(name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW), errno.ELOOP)
    os.close(os.open(mount.above("dangling"), os.O_RDWR | os.O_CREAT))
    assert os.path.exists(mount.below("nowhere"))


def truncation_by_open_takes_the_set_id_bits(mount):
    peer = user(mount)
    make(mount.below("file"), b"x")
    os.chmod(mount.below("file"), 0o6777)
    assert peer.open("file", os.O_WRONLY | os.O_TRUNC) >= 0
    st = os.stat(mount.below("file"))
    same("mode and size", (st.st_mode & 0o7777, st.st_size), (0o777, 0))


def settled(path):
    until(lambda: time.time() - os.stat(path).st_ctime > 0.1)


def opened_again_its_pages_are_still_there(mount):
    make(mount.below("file"), b"x" * 100000)
    settled(mount.below("file"))
    content(mount.above("file"))
    reads = mount.count(r"\breads (\d+)")
    assert reads
    for _ in range(3):
        same("content", len(content(mount.above("file"))), 100000)
    same("reads", mount.count(r"\breads (\d+)"), reads)


def a_change_below_is_seen_when_opened_again(mount):
    make(mount.below("file"), b"1" * 100000)
    for digit in b"2", b"3", b"4":
        settled(mount.below("file"))
        content(mount.above("file"))
        before = os.stat(mount.below("file"))
        with open(mount.below("file"), "r+b") as file:
            file.write(digit * 100000)
        os.utime(mount.below("file"), ns=(before.st_atime_ns, before.st_mtime_ns))
        same("content", content(mount.above("file")), digit * 100000)


def what_grows_or_shrinks_below_is_seen_when_opened_again(mount):
    for size in 10, 5000, 200, 0, 100000, 3:
        make(mount.below("file"), b"x" * size)
        same("content", content(mount.above("file")), b"x" * size)
        fd = os.open(mount.above("file"), os.O_RDONLY)
        same("size", os.fstat(fd).st_size, size)
        os.close(fd)


def changes_below_in_one_tick_are_seen(mount):
    fd = os.open(mount.below("file"), os.O_RDWR | os.O_CREAT)
    for i in range(300):
        os.pwrite(fd, b"%08d" % i, 0)
        same("content", content(mount.above("file")), b"%08d" % i)
    os.close(fd)


def what_is_replaced_below_is_seen_when_opened(mount):
    for i in range(50):
        make(mount.below("fresh"), b"%d" % i)
        os.rename(mount.below("fresh"), mount.below("file"))
        same("content", content(mount.above("file")), b"%d" % i)
    os.unlink(mount.below("file"))
    os.close(os.open(mount.above("file"), os.O_WRONLY | os.O_CREAT))
    same("below", os.listdir(mount.source), ["file"])


def an_open_file_without_a_name_is_opened_anew(mount):
    make(mount.below("file"), b"x")
    for remove in mount.above, mount.below:
        fd = os.open(mount.above("file"), os.O_RDONLY)
        os.unlink(remove("file"))
        for _ in range(2):
            same("content", content(f"/proc/self/fd/{fd}"), b"x")
        os.close(fd)
        make(mount.below("file"), b"x")


def a_change_below_is_seen_by_who_has_it_open(mount):
    make(mount.below("file"), b"1" * 5000)
    fd = os.open(mount.above("file"), os.O_RDONLY)
    same("before", os.pread(fd, 1, 4500), b"1")
    with open(mount.below("file"), "r+b") as file:
        file.write(b"2" * 6000)
    until(lambda: os.fstat(fd).st_size == 6000 and os.pread(fd, 2, 4500) == b"22")
    os.close(fd)


def write_below(mount, data, offset=0):
    with open(mount.below("file"), "r+b") as file:
        file.seek(offset)
        file.write(data)


def a_change_below_is_seen_though_the_mount_may_write(mount):
    make(mount.below("file"), b"1" * 5000)
    fd = os.open(mount.above("file"), os.O_RDWR)
    os.pwrite(fd, b"x", 4000)
    same("before", content(mount.above("file"))[3999:4001], b"1x")
    until(lambda: time.time() - os.stat(mount.below("file")).st_mtime > 1.2)  # a server's clock, see data.c
    write_below(mount, b"2" * 5000)
    same("after", content(mount.above("file"))[3999:4001], b"22")
    os.close(fd)


def a_change_below_to_no_time_is_seen_though_the_mount_may_write(mount):
    make(mount.below("file"), b"1" * 5000)
    settled(mount.below("file"))
    fd = os.open(mount.above("file"), os.O_RDWR)
    same("before", os.pread(fd, 1, 4000), b"1")
    write_below(mount, b"2" * 5000)
    os.utime(mount.below("file"), (0, 0))
    same("after", content(mount.above("file"))[4000:4001], b"2")
    os.close(fd)


def many_pages_are_dropped_by_who_opens(mount):
    def daemons_time():
        with open(f"/proc/{mount.process.pid}/task/{mount.process.pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0])

    with open(mount.below("file"), "wb") as file:
        file.truncate(256 << 20)
    settled(mount.below("file"))
    with open(mount.above("file"), "rb") as file:
        while file.read(1 << 20):
            pass
    # It has few by now, but the kernel has not asked.
    os.truncate(mount.below("file"), 4096)
    daemons, ours = daemons_time(), time.thread_time_ns()
    os.close(os.open(mount.above("file"), os.O_RDONLY))
    daemons, ours = daemons_time() - daemons, time.thread_time_ns() - ours
    assert daemons < ours, f"{daemons} ns on the loop's thread, {ours} on ours"


def a_change_below_before_a_write_is_seen_after_close(mount):
    make(mount.below("file"), b"1" * 5000)
    fd = os.open(mount.above("file"), os.O_RDWR)
    same("before", len(os.pread(fd, 5000, 0)), 5000)
    settled(mount.below("file"))
    write_below(mount, b"2", 100)
    os.pwrite(fd, b"3", 4000)
    settled(mount.below("file"))
    content(mount.above("file"))
    os.close(fd)
    same("after", content(mount.above("file")).replace(b"1", b""), b"23")


def without_a_timeout_a_change_below_is_seen_at_once(mount):
    with Mount(mount.place, *mount.options, "-o", "timeout=0") as strict:
        make(strict.below("file"), b"1" * 5000)
        settled(strict.below("file"))
        fd = os.open(strict.above("file"), os.O_RDONLY)
        same("before", os.pread(fd, 1, 4500), b"1")
        write_below(strict, b"2" * 5000)
        same("after", os.pread(fd, 1, 4500), b"2")
        os.close(fd)


# ---- the rest ------------------------------------------------------------------------------


def space_is_taken_and_given_back(mount):
    fds = [os.open(side("file" + side.__name__), os.O_RDWR | os.O_CREAT) for side in (mount.above, mount.below)]
    for mode, offset, length in ((0, 0, 1 << 20), (1, 1 << 20, 1 << 20), (3, 65536, 65536), (3, 5, 70000),
                                 (16, 300000, 10000), (17, 1 << 20, 4096), (0, 1 << 21, 1)):
        for fd in fds:
            os.pwrite(fd, b"z" * 200000, 0)
        r = [LIBC.fallocate(fd, mode, offset, length) and ctypes.get_errno() for fd in fds]
        same(f"mode {mode}", *r)
        # The tree of its extents may have a block more.
        same("size and blocks", *((st.st_size, st.st_blocks + 32 >> 6) for st in map(os.fstat, fds)))
        same("bytes", *(os.pread(fd, 1 << 22, 0) for fd in fds))
        if mount.options:
            continue  # what is written directly is a piece of its own
        # To xfs it matters which pages are in memory: so of the same file.
        with open(mount.below("fileabove"), "rb") as beneath:
            for at, whence in (65536, os.SEEK_DATA), (0, os.SEEK_HOLE), (300000, os.SEEK_HOLE):
                same("data or hole", *(os.lseek(fd, at, whence) for fd in (fds[0], beneath.fileno())))
    for fd in fds:
        same("beyond", error_of(os.lseek, fd, 1 << 40, os.SEEK_DATA), errno.ENXIO)
        os.close(fd)


def a_copy_within_is_made_below(mount):
    data = os.urandom(3 << 20)
    make(mount.below("from"), data)
    source = os.open(mount.above("from"), os.O_RDONLY)
    with open(mount.above("from"), "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 100 << 20)
    to = os.open(mount.above("to"), os.O_RDWR | os.O_CREAT)
    done = 0
    while n := os.copy_file_range(source, to, 1 << 30):
        done += n
        assert n <= 32 << 20, n
    same("copied", done, 100 << 20)
    same("bytes", content(mount.above("to"))[:len(data)], data)
    same("anywhere", os.copy_file_range(source, to, 12345, 1001, 70001), 12345)
    same("bytes", os.pread(to, 12345, 70001), data[1001:1001 + 12345])
    same("written through the mount", mount.count(r"writes (\d+)"), 0)
    same("overlap", error_of(os.copy_file_range, to, to, 100, 0, 50), errno.EINVAL)
    os.close(source)
    os.close(to)


def an_applications_o_direct_is_as_any_other(mount):
    fd = os.open(mount.above("file"), os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    with mmap.mmap(-1, 65536) as memory:
        memory[:] = os.urandom(65536)
        data = memory[:]
        same("written", os.pwritev(fd, [memory], 4096), 65536)
        memory[:] = bytes(65536)
        same("read", os.preadv(fd, [memory], 4096), 65536)
        same("bytes", memory[:], data)
    os.close(fd)
    same("below", content(mount.below("file"))[4096:], data)


def writes_of_any_place_and_size_agree(mount):
    """Several descriptors, and a mapping: parts of a block are put together."""
    model, path = bytearray(), mount.above("file")
    fds = [os.open(path, flags | os.O_CREAT) for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_DSYNC)]
    for i in range(400):
        at, data = random.randrange(100000), os.urandom(random.randrange(1, 20000))
        model.extend(bytes(max(0, at + len(data) - len(model))))
        model[at:at + len(data)] = data
        os.pwrite(random.choice(fds), data, at)
        if i % 5 == 0:
            at = random.randrange(len(model))
            with mmap.mmap(fds[0], 0) as memory:
                memory[at] = model[at] = i & 255
    same("above", os.pread(fds[0], 1 << 20, 0), bytes(model))
    os.fsync(fds[1])
    same("below", content(mount.below("file")), bytes(model))
    for fd in fds:
        os.close(fd)


MAPPED = []


def change_mapped(fd, at, byte):
    MAPPED.append(mmap.mmap(fd, 0))
    MAPPED[0][at] = byte


class Delay:
    """Every @call of the daemon's takes 10 ms more."""

    def __init__(self, mount, call):
        needs("strace")
        self.mount, self.call = mount, call

    def __enter__(self):
        pid = self.mount.process.pid
        self.strace = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", "trace=" + self.call,
                                        "-e", f"inject={self.call}:delay_enter=10000"])
        until(lambda: all(b"TracerPid:\t0\n" not in content(f"/proc/{pid}/task/{task}/status")
                          for task in os.listdir(f"/proc/{pid}/task")))

    def __exit__(self, *_):
        self.strace.terminate()
        self.strace.wait(PATIENCE)


def direct_writes_of_two_descriptors_at_once_are_both_there(mount):
    """Each cuts off the file what it padded. By the end of a mapping the kernel writes it back,
    and keeps nobody else from writing meanwhile."""
    if not mount.options:
        raise Skip("its bytes go by the page cache")
    path = mount.above("file")
    mapper, writer = mount.peer(), mount.peer()
    first = os.open(path, os.O_RDWR | os.O_CREAT)
    fds = [peer.open(path) for peer in (mapper, writer)]
    os.close(first)
    with Delay(mount, "ftruncate"):
        for i in range(1, 31):
            os.truncate(path, 0)
            os.truncate(path, 100)
            mapper.do(f"change_mapped({fds[0]}, 7, {i})")
            mapper.start("MAPPED.pop().close()")
            writer.start(f"os.pwrite({fds[1]}, b'x' * 1000, 5000)")
            same("written", writer.end(), 1000)
            mapper.end()
            same("below", content(mount.below("file")), bytes(7) + bytes((i,)) + bytes(4992) + b"x" * 1000)


def read_directly(fd, offset):
    with mmap.mmap(-1, 4096) as memory:
        return os.preadv(fd, [memory], offset) and memory[:1]


def a_read_waits_for_the_write_before_it(mount, mode=0o666):
    """Else the kernel could take old bytes into a page, which a mapping's change puts back."""
    freezer = Freezer(mount)
    make(mount.below("file"), b"1" * 8192)
    os.chmod(mount.below("file"), mode)
    writer, reader, other = user(mount), mount.peer(), mount.peer()
    to = writer.open("file", os.O_WRONLY)
    fds = [peer.open(mount.above("file"), os.O_RDONLY | os.O_DIRECT) for peer in (reader, other)]
    with freezer:
        writer.start(f"os.pwrite({to}, b'2' * 4096, 0)")
        until(freezer.holds)
        reader.start(f"read_directly({fds[0]}, 0)")
        until(lambda: mount.count(r"in hand (\d+)") == 2 or reader.has_answered())
        same("beside it", other.do(f"read_directly({fds[1]}, 4096)"), b"1")
        assert not reader.has_answered(), reader.end()
    same("written", writer.end(), 4096)
    same("read", reader.end(), b"2")


def a_read_waits_for_the_write_that_takes_set_id_bits(mount):
    a_read_waits_for_the_write_before_it(mount, 0o4666)
    same("mode", os.stat(mount.below("file")).st_mode & 0o7777, 0o666)


def written_and_lost(path, number, crowd):
    """Writes each record of 500 bytes that is its own a hundred times, by a mapping if its number
    is odd; where it was not there afterwards."""
    size, lost = os.stat(path).st_size, []
    places = range(number * 500, size - 500, crowd * 500)
    for i in range(100):
        record = bytes([i + 1]) * 500
        fd = os.open(path, os.O_RDWR)
        memory = mmap.mmap(fd, size) if number % 2 else None
        for at in places:
            if memory:
                memory[at:at + 500] = record
            else:
                os.pwrite(fd, record, at)
        lost += [(i, at) for at in places if (memory[at:at + 500] if memory else os.pread(fd, 500, at)) != record]
        if memory:
            memory.close()
        os.close(fd)
    return lost


def what_processes_write_side_by_side_is_kept(mount):
    """No page is dropped under a write: the kernel would lose it."""
    peers = [mount.peer() for _ in range(8)]
    for i in range(8):
        name = f"file{i}"
        make(mount.above(name), bytes(16384))
        for number, peer in enumerate(peers):
            peer.start(f"written_and_lost({mount.above(name)!r}, {number}, {len(peers)})[:10]")
        same("lost", [peer.end() for peer in peers], [[]] * len(peers))
        same("below", content(mount.below(name)), content(mount.above(name)))


# ---- locks of fcntl(2) --------------------------------------------------------------------------


def two(mount, *sides, name="file"):
    """Two processes with a file open, each on its side."""
    make(mount.below(name))
    peers = [mount.peer() for _ in sides]
    return [*peers, *(peer.open(side(name)) for peer, side in zip(peers, sides))]


def all_sides(mount):
    yield mount.above, mount.above
    yield mount.above, mount.below
    yield mount.below, mount.above


def a_lock_is_seen_on_all_sides(mount):
    for sides in all_sides(mount):
        a, b, x, y = two(mount, *sides)
        assert got(a.lock(x, WRITE, 10, 10))
        same("held", b.lock(y, READ, 15, 1), BUSY)
        assert got(b.lock(y, WRITE, 0, 10))
        assert got(b.lock(y, WRITE, 20, 0))
        assert got(a.lock(x, UNLOCK, 12, 4))
        assert got(b.lock(y, READ, 12, 4))
        same("held", b.lock(y, READ, 11, 1), BUSY)
        same("held", b.lock(y, READ, 16, 1), BUSY)
        a.kill()
        assert got(b.lock(y, WRITE))
        b.kill()


def who_is_in_the_way_is_said(mount):
    for sides in all_sides(mount):
        a, b, x, y = two(mount, *sides)
        assert got(a.lock(x, READ, 10, 10))
        same("none", b.test(y, READ, 0, 0)[0], UNLOCK)
        kind, start, length, pid = b.test(y, WRITE, 0, 0)
        same("lock", (kind, start, length), (READ, 10, 10))
        # Of F_OFD_SETLK no process is known: who looks from below sees ours so.
        same("pid", pid, a.pid if sides[1] == mount.above else -1)
        assert got(a.lock(x, WRITE, 30, 0))
        same("lock", b.test(y, READ, 0, 0)[:3], (WRITE, 30, 0))
        same("own", a.test(x, WRITE, 0, 0)[0], UNLOCK)
        a.kill()
        b.kill()


def a_lock_is_raised_and_lowered(mount):
    for sides in all_sides(mount):
        a, b, x, y = two(mount, *sides)
        assert got(a.lock(x, READ, 0, 100)) and got(b.lock(y, READ, 50, 100))
        same("raised", a.lock(x, WRITE, 0, 100), BUSY)
        assert got(a.lock(x, WRITE, 0, 50))
        same("held", b.lock(y, READ, 49, 1), BUSY)
        assert got(a.lock(x, READ, 0, 50)) and got(b.lock(y, READ, 49, 1))
        same("still", b.lock(y, WRITE, 60, 1), BUSY)
        a.kill()
        b.kill()


def closing_any_descriptor_drops_the_locks(mount):
    a, b, x, y = two(mount, mount.above, mount.below)
    for flags in os.O_RDWR, os.O_RDONLY:
        other = a.open(mount.above("file"), flags)
        assert got(a.lock(x, WRITE))
        same("held", b.lock(y, READ), BUSY)
        a.do(f"os.close({other})")
        assert got(b.lock(y, WRITE)) and got(b.lock(y, UNLOCK))
    copy = a.do(f"os.dup({x})")
    assert got(a.lock(x, WRITE))
    a.do(f"os.close({copy})")
    assert got(b.lock(y, WRITE))


def one_process_with_several_descriptors_is_one_owner(mount):
    a, b, x, y = two(mount, mount.above, mount.above)
    for flags in os.O_RDONLY, os.O_RDWR:
        first = a.open(mount.above("file"), flags)
        assert got(a.lock(first, READ, 0, 10)) and got(a.lock(first, READ, 20, 10))
        assert got(a.lock(x, WRITE, 5, 20))
        same("held", b.lock(y, READ, 7, 1), BUSY)
        assert got(b.lock(y, READ, 0, 5)) and got(b.lock(y, UNLOCK))
        same("held", b.lock(y, WRITE, 0, 5), BUSY)
        same("held", b.lock(y, WRITE, 27, 1), BUSY)
        assert got(b.lock(y, WRITE, 30, 0)) and got(b.lock(y, UNLOCK))
        a.do(f"os.close({first})")
        assert got(b.lock(y, WRITE)) and got(b.lock(y, UNLOCK))


def a_child_has_no_lock_of_its_parents(mount):
    a, b, x, y = two(mount, mount.above, mount.below)
    assert got(a.lock(x, WRITE))
    child = "(lambda pid: os.waitpid(pid, 0)[1] if pid else os._exit(%s))(os.fork())"
    order = lock_order(x, READ, 0, 0, fcntl.F_SETLK)
    same("child", a.do(child % f"error_of(lambda: {order})") >> 8, errno.EAGAIN)
    same("after it closed", b.lock(y, READ), BUSY)
    assert got(a.lock(x, UNLOCK))
    same("child", a.do(child % f"error_of(lambda: {order})") >> 8, 0)
    assert got(b.lock(y, WRITE))


def who_waits_gets_it_when_it_is_free(mount):
    for sides in all_sides(mount):
        a, b, x, y = two(mount, *sides)
        for release in (lambda: a.lock(x, UNLOCK), lambda: a.do(f"os.close({x})"), a.kill):
            assert got(a.lock(x, WRITE, 0, 10))
            b.start_lock(y, WRITE, 5, 10)
            if sides[1] == mount.above:
                b.waits()
            release()
            assert got(b.end()) and got(b.lock(y, UNLOCK))
            if release is not a.kill and a.pid:
                x = a.open(sides[0]("file"))
        b.kill()


def a_lowered_lock_lets_readers_in(mount):
    a, b, x, y = two(mount, mount.above, mount.above)
    assert got(a.lock(x, WRITE))
    b.start_lock(y, READ)
    b.waits()
    assert got(a.lock(x, READ)) and got(b.end())


def a_signal_ends_the_wait(mount):
    for side in mount.above, mount.below:
        a, b, x, y = two(mount, side, mount.above)
        assert got(a.lock(x, WRITE)) and a.flock(x, ALONE) is None
        for start in (lambda: b.start_lock(y, WRITE), lambda: b.start(f"fcntl.flock({y}, {ALONE})")):
            start()
            b.waits()
            os.kill(b.pid, signal.SIGUSR1)
            same("answer", b.end(), -errno.EINTR)
        a.kill()
        assert got(b.lock(y, WRITE)) and b.flock(y, ALONE) is None
        b.kill()


def who_is_killed_waits_no_longer(mount):
    a, b, x, y = two(mount, mount.above, mount.above)
    c = mount.peer()
    z = c.open(mount.above("file"))
    assert got(a.lock(x, WRITE))
    b.start_lock(y, WRITE)
    b.waits()
    c.start_lock(z, WRITE)
    c.waits()
    b.kill()
    assert got(a.lock(x, UNLOCK)) and got(c.end())


def a_wait_for_one_another_is_refused(mount):
    a, b, x, y = two(mount, mount.above, mount.above)
    c = mount.peer()
    z = c.open(mount.above("file"))
    make(mount.below("other"))
    other = b.open(mount.above("other"))
    another = c.open(mount.above("other"))
    assert got(a.lock(x, WRITE, 0, 1)) and got(b.lock(other, WRITE)) and got(c.lock(z, READ, 1, 1))
    b.start_lock(y, WRITE, 0, 1)
    b.waits()
    c.start_lock(another, READ)
    c.waits()
    same("answer", a.lock(x, WRITE, 1, 1, fcntl.F_SETLKW), -errno.EDEADLK)
    assert got(a.lock(x, UNLOCK)) and got(b.end())
    assert got(b.lock(other, UNLOCK)) and got(c.end())


def locks_of_open_files_are_their_own(mount):
    a, b, x, y = two(mount, mount.above, mount.above)
    other = a.open(mount.above("file"))
    assert got(a.lock(x, WRITE, 0, 0, F_OFD_SETLK))
    same("own", a.lock(other, WRITE, 0, 0, F_OFD_SETLK), BUSY)
    same("other", b.lock(y, READ), BUSY)
    a.do(f"os.close({other})")
    copy = a.do(f"os.dup({x})")
    a.do(f"os.close({x})")
    same("other", b.lock(y, READ), BUSY)
    a.do(f"os.close({copy})")
    b.start_lock(y, WRITE)
    assert got(b.end())
    x = a.open(mount.above("file"))
    a.start_lock(x, WRITE, 0, 0, F_OFD_SETLKW)
    a.waits()
    assert got(b.lock(y, UNLOCK)) and got(a.end())


def a_file_for_reading_alone_is_locked_for_reading(mount):
    a, b, x, y = two(mount, mount.above, mount.below)
    x, writes = a.open(mount.above("file"), os.O_RDONLY), a.open(mount.above("file"), os.O_WRONLY)
    same("write lock", a.lock(x, WRITE), -errno.EBADF)
    assert got(a.lock(writes, WRITE, 0, 10)) and got(a.lock(x, READ, 20, 10))
    same("held", b.lock(y, READ, 0, 1), BUSY)
    same("held", b.lock(y, WRITE, 20, 1), BUSY)
    assert got(b.lock(y, READ, 20, 1))


def many_may_wait(mount):
    """More than the daemon has requests in hand at most."""
    a, b, x, y = two(mount, mount.above, mount.above)
    assert got(a.lock(x, WRITE)) and a.flock(x, ALONE) is None
    peers = [mount.peer() for _ in range(300)]
    fds = [peer.open(mount.above("file")) for peer in peers]
    for i, (peer, fd) in enumerate(zip(peers, fds)):
        if i % 2:
            peer.start_lock(fd, READ)
        else:
            peer.start(f"fcntl.flock({fd}, {SHARED})")
    for peer in peers:
        peer.waits()
    same("busy", b.lock(y, READ), BUSY)
    make(mount.above("other"), b"x")
    assert got(a.lock(x, UNLOCK)) and a.flock(x, FREE) is None
    for peer in peers:
        peer.end()
        peer.kill()


def a_file_has_so_many_locks_and_no_more(mount):
    a, b, x, y = two(mount, mount.above, mount.above)
    one = f"fcntl.fcntl({x}, {fcntl.F_SETLK}, struct.pack(FLOCK, {WRITE}, 0, 4 * i, 3, 0))"
    assert got(a.do(f"[{one} for i in range(4095)][-1]"))
    assert got(b.lock(y, READ, 100000, 1))
    for peer, fd in (a, x), (b, y):
        same("one more", peer.lock(fd, WRITE, 200000, 1), -errno.ENOLCK)
    same("two of one", a.lock(x, UNLOCK, 401, 1), -errno.ENOLCK)
    assert got(a.lock(x, UNLOCK, 400, 1)) and got(a.lock(x, UNLOCK, 400, 3)) and got(b.lock(y, WRITE, 400, 1))
    same("full again", a.lock(x, WRITE, 200000, 1), -errno.ENOLCK)
    assert got(a.lock(x, UNLOCK)) and got(a.lock(x, WRITE, 200000, 1)) and got(b.lock(y, WRITE, 0, 10))


def random_locks_are_as_below(mount):
    """The same orders above and below, by as many processes: the same answers."""
    make(mount.below("file"))
    make(mount.below("model"))
    peers = []
    for side, name in (mount.above, "file"), (mount.below, "model"):
        peers.append([mount.peer() for _ in range(3)])
        for peer in peers[-1]:
            peer.fds = [peer.open(side(name)) for _ in range(2)]
    for _ in range(1500):
        i, j = random.randrange(3), random.randrange(2)
        order = random.choice((READ, WRITE, UNLOCK)), random.randrange(50), random.randrange(20)
        if random.random() < 0.02:
            for side, name, group in zip((mount.above, mount.below), ("file", "model"), peers):
                group[i].do(f"os.close({group[i].fds[j]})")
                group[i].fds[j] = group[i].open(side(name))
        elif random.random() < 0.2:
            same("test", *(group[i].test(group[i].fds[j], *order[:2], order[2])[0] == UNLOCK
                           for group in peers)) if order[0] != UNLOCK else None
        else:
            same(f"answer to {order}", *(got(group[i].lock(group[i].fds[j], *order)) for group in peers))


# ---- locks of flock(2) --------------------------------------------------------------------------


def a_locked_file_is_locked_on_all_sides(mount):
    for sides in all_sides(mount):
        a, b, x, y = two(mount, *sides)
        assert a.flock(x, SHARED) is None and b.flock(y, SHARED) is None
        same("raised", a.flock(x, ALONE | NOT_NOW), BUSY)
        # The one that was not raised is lost.
        assert b.flock(y, ALONE | NOT_NOW) is None
        same("held", a.flock(x, SHARED | NOT_NOW), BUSY)
        assert b.flock(y, SHARED | NOT_NOW) is None and a.flock(x, SHARED | NOT_NOW) is None
        a.kill()
        b.kill()


def flock_is_the_open_files(mount):
    a, b, x, y = two(mount, mount.above, mount.below)
    other, copy = a.open(mount.above("file")), a.do(f"os.dup({x})")
    assert a.flock(x, ALONE) is None and a.flock(copy, ALONE | NOT_NOW) is None
    same("other", a.flock(other, SHARED | NOT_NOW), BUSY)
    assert got(b.lock(y, WRITE)), "the two kinds know nothing of one another"
    a.do(f"os.close({x})")
    a.do(f"os.close({other})")
    same("held", b.flock(y, SHARED | NOT_NOW), BUSY)
    a.do(f"os.close({copy})")
    same("free", b.flock(y, ALONE), None)


def closed_means_unlocked_at_once(mount):
    a, b, _, y = two(mount, mount.above, mount.above)
    for _ in range(300):
        x = a.open(mount.above("file"))
        assert a.flock(x, ALONE | NOT_NOW) is None
        a.do(f"os.close({x})")
        assert b.flock(y, ALONE | NOT_NOW) is None and b.flock(y, FREE) is None


def who_waits_for_a_flock_gets_it(mount):
    for sides in all_sides(mount):
        a, b, x, y = two(mount, *sides)
        for release in (lambda: a.flock(x, FREE), lambda: a.flock(x, SHARED), a.kill):
            assert a.flock(x, ALONE) is None
            b.start(f"fcntl.flock({y}, {SHARED})")
            if sides[1] == mount.above:
                b.waits()
            release()
            same("answer", b.end(), None)
            b.flock(y, FREE)
        b.kill()


def the_end_waits_for_no_lock(mount):
    a, b, x, y = two(mount, mount.below, mount.above)
    assert got(a.lock(x, WRITE))
    b.start_lock(y, WRITE)
    b.waits()
    mount.process.send_signal(signal.SIGTERM)
    answer = b.end()
    assert not got(answer) and answer < 0, answer
    b.kill()
    mount.gone()


def an_abort_waits_for_no_lock(mount):
    a, b, x, y = two(mount, mount.below, mount.above)
    assert got(a.lock(x, WRITE))
    b.start_lock(y, WRITE)
    b.waits()
    abort(mount)
    same("answer", b.end(), -errno.ECONNABORTED)
    b.kill()
    # libfuse leaves to others what they have aborted.
    same("status", mount.process.wait(PATIENCE), 0)


DATA = (
    appends_of_all_sides_are_kept, a_mapped_page_of_a_file_that_appends_goes_to_its_place,
    append_set_later_is_obeyed, a_file_to_append_to_only_is_appended_to,
    what_a_mapping_changed_is_there_after_close, an_unlinked_file_is_written_read_and_mapped,
    a_full_disk_is_as_it_is_below, a_file_too_large_for_the_daemon_is_an_error,
    a_new_file_is_the_callers, of_many_who_create_one_is_first,
    who_does_not_insist_opens_what_another_has_made, no_one_gets_by_creation_what_he_may_not_open,
    a_symlink_is_not_followed_when_told_so, truncation_by_open_takes_the_set_id_bits,
    opened_again_its_pages_are_still_there, a_change_below_is_seen_when_opened_again,
    changes_below_in_one_tick_are_seen, what_grows_or_shrinks_below_is_seen_when_opened_again, what_is_replaced_below_is_seen_when_opened,
    an_open_file_without_a_name_is_opened_anew, a_change_below_is_seen_by_who_has_it_open,
    a_change_below_is_seen_though_the_mount_may_write, a_change_below_before_a_write_is_seen_after_close,
    a_change_below_to_no_time_is_seen_though_the_mount_may_write, many_pages_are_dropped_by_who_opens,
    without_a_timeout_a_change_below_is_seen_at_once,
    space_is_taken_and_given_back, a_copy_within_is_made_below,
    an_applications_o_direct_is_as_any_other, writes_of_any_place_and_size_agree,
    direct_writes_of_two_descriptors_at_once_are_both_there,
    a_read_waits_for_the_write_before_it, a_read_waits_for_the_write_that_takes_set_id_bits,
    what_processes_write_side_by_side_is_kept)
BUFFERED = (
    large_writes_go_through_pipes,
    a_lock_is_seen_on_all_sides, who_is_in_the_way_is_said, a_lock_is_raised_and_lowered,
    closing_any_descriptor_drops_the_locks, one_process_with_several_descriptors_is_one_owner,
    a_child_has_no_lock_of_its_parents, who_waits_gets_it_when_it_is_free,
    a_lowered_lock_lets_readers_in, a_signal_ends_the_wait, who_is_killed_waits_no_longer,
    a_wait_for_one_another_is_refused, locks_of_open_files_are_their_own,
    a_file_for_reading_alone_is_locked_for_reading, many_may_wait, a_file_has_so_many_locks_and_no_more,
    random_locks_are_as_below,
    a_locked_file_is_locked_on_all_sides, flock_is_the_open_files, closed_means_unlocked_at_once,
    who_waits_for_a_flock_gets_it, the_end_waits_for_no_lock, an_abort_waits_for_no_lock)


def make_overlay():
    """Its place, or none."""
    parts = [f"{TOP}/overlay-{part}" for part in ("lower", "upper", "work", "all")]
    for part in parts:
        os.mkdir(part)
    options = "lowerdir={},upperdir={},workdir={}".format(*parts)
    made = subprocess.run(["mount", "-t", "overlay", "-o", options, "none", parts[3]],
                          stderr=subprocess.DEVNULL, check=False).returncode == 0
    return [("overlay", parts[3])] if made else []


def case(test, name, place, *options):
    title = " ".join((test.__name__, name, *options))

    def call():
        random.seed(title)
        with Mount(place, *options) as mount:
            test(mount)

    return title, call


def cases(places):
    for name, place in places:
        for test in DATA:
            yield case(test, name, place)
            yield case(test, name, place, "--direct")
        for test in BUFFERED:
            yield case(test, name, place)


def main():
    begin()
    os.umask(0)
    os.chmod(TOP, 0o755)
    places = find_places(lambda: [("here", TOP), *make_overlay()])
    status = run(cases(places), sys.argv[2:])
    if ("overlay", TOP + "/overlay-all") in places:
        subprocess.run(["umount", TOP + "/overlay-all"], check=True)
    return status


def tidy():
    if mounted(TOP + "/overlay-all"):
        subprocess.run(["umount", "-l", TOP + "/overlay-all"], check=True)
    shutil.rmtree(TOP)


try:
    sys.exit(main())
finally:
    tidy()
