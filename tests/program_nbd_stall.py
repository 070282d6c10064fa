#!/usr/bin/env python3
"""What is in memory beside readers of a slow disk, in TAP: run by slow_device.sh.

Usage: program_nbd_stall.py ONEFD_NBD NBD_STALL [prepare DIR]

NBD_STALL is the program nbd_stall.c. NBD_STALL_SECONDS (1.5) is how long each measures, and
how long the disk stands still. With QEMU_NBD=1 the same figures of qemu-nbd, as comments.
Half may take 1 ms at most, however busy the machine, and nothing as long as the disk does; with
STALL_STRICT=1 the bounds are what a quiet machine shows.
"""
import mmap
import os
import select
import signal
import subprocess
import sys

import nbd
import pages
from nbd import MIB, Peer, Server
from tap import PATIENCE, Child

PROGRAM, STALL = sys.argv[1:3]
SECONDS = float(os.environ.get("NBD_STALL_SECONDS", "1.5"))
MEDIAN_US = 1000
P99_US, MOST_US = (1000, 25000) if os.environ.get("STALL_STRICT") else (50000, 190000)


class Stall(Child):
    """nbd_stall at work, for as long as is wanted."""

    def __init__(self, server, readers):
        self.process = subprocess.Popen([STALL, server.path, str(readers)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        preexec_fn=be_first)
        assert self.process.stdout.readline() == "ready\n"

    def last(self, seconds):
        """It would only say something were it to fail."""
        assert not select.select([self.process.stdout], [], [], seconds)[0]

    def head(self):
        """How many, and the median, p99 and most in microseconds."""
        self.process.stdin.close()
        self.process.stdin = None
        line = self.process.stdout.readline().split()
        assert line and line[0] == "head", line
        return tuple(map(int, line[1:]))

    def cold(self):
        said, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return int(said.split()[1])


def disk():
    return os.path.join(os.environ["ONEFD_SLOW_DIR"], "disk")


def be_first():
    """What else the machine does is not what is measured."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    except PermissionError:
        pass


def make_cold():
    """All but the head, which stays: what is mapped nobody's dropping of caches takes."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
    pages.forget(disk())
    with open(disk(), "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.read(MIB)
        head = mmap.mmap(file.fileno(), MIB, access=mmap.ACCESS_READ)
    assert sum(head[::mmap.PAGESIZE]) >= 0  # each is touched
    count = pages.count_resident(disk())
    assert 256 <= count <= 1024, count
    return head


def show(who, readers, head, cold):
    count, median, p99, most = head
    return (f"{who}: beside {readers} cold readers ({cold} reads): {count} of the head, "
            f"median {median / 1e3:.2f}, p99 {p99 / 1e3:.2f}, most {most / 1e3:.2f} ms")


def measure(server, readers, seconds):
    with Stall(server, readers) as stall:
        stall.last(seconds)
        head = stall.head()
        return head, stall.cold()


def in_time(measured):
    head, said = measured
    assert head[0] > 50 and head[1] <= MEDIAN_US and head[2] <= P99_US and head[3] <= MOST_US, said
    return said


def serve_beside(readers):
    kept = make_cold()
    with Server([PROGRAM], disk(), preexec=be_first) as server:
        head, cold = measure(server, readers, SECONDS)
        server.until_idle()
    kept.close()
    assert cold > readers
    return head, show("onefd-nbd", readers, head, cold)


def head_in_memory_does_not_wait_beside_8_readers():
    return in_time(serve_beside(8))


def head_in_memory_does_not_wait_beside_32_readers():
    return in_time(serve_beside(32))


def serve_beside_stopped_disk():
    kept = make_cold()
    device = int(os.environ["ONEFD_SLOW_PID"])
    with Server([PROGRAM], disk(), preexec=be_first) as server, Stall(server, 32) as stall:
        os.kill(device, signal.SIGSTOP)
        try:
            before = server.cpu()
            stall.last(SECONDS)
            used = server.cpu() - before
            head = stall.head()
            # They do wait for it.
            assert server.counters()["requests"] >= 32
        finally:
            os.kill(device, signal.SIGCONT)
        cold = stall.cold()
        server.until_idle()
    kept.close()
    said = show("onefd-nbd, disk stopped", 32, head, cold) + \
        f"; {used * 1e3:.0f} ms of CPU in {SECONDS:g} s"
    assert used <= .05 * SECONDS + .05, said
    return head, said


def disk_that_stands_still_holds_up_nothing_in_memory():
    return in_time(serve_beside_stopped_disk())


def peers_beside():
    said = []
    for readers in 8, 32:
        kept = make_cold()
        with Peer("qemu-nbd", disk(), 64) as server:
            said.append(show("qemu-nbd", readers, *measure(server, readers, SECONDS)))
        kept.close()
    return "\n".join(said)


if len(sys.argv) > 3:
    os.rmdir(nbd.ROOT)
    sys.exit(subprocess.run([STALL, *sys.argv[3:]], check=False).returncode)
tests = [head_in_memory_does_not_wait_beside_8_readers,
         head_in_memory_does_not_wait_beside_32_readers,
         disk_that_stands_still_holds_up_nothing_in_memory]
if os.environ.get("QEMU_NBD"):
    tests.append(peers_beside)
sys.exit(nbd.run(tests))
