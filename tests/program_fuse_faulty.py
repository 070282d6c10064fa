#!/usr/bin/env python3
"""How onefd-fuse bears a source whose reads fail, are short, come late or never, in TAP.

Usage: program_fuse_faulty.py ONEFD_FUSE FAULTY_FS [TEST]...

The source is the file system of faulty_fs.c, with its page cache and without.
FUSE_DAEMON=PROGRAM names another daemon.
"""
import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading

from faulty import Disk
from fuse_mounts import abort, begin, end_daemon, mounted
from tap import PATIENCE, Skip, run, until

PAGE = 4096
DAEMON = os.path.realpath(os.environ.get("FUSE_DAEMON", sys.argv[1]))
FAULTY_FS = os.path.realpath(sys.argv[2])
OURS = os.path.basename(DAEMON) == "onefd-fuse"


def pattern(offset, size):
    return bytes(((at * 0x9e3779b97f4a7c15) & (2**64 - 1)) >> 56 for at in range(offset, offset + size))


class Mount:
    """A daemon over faulty_fs."""

    def __init__(self, *options, below=()):
        self.top = tempfile.mkdtemp(prefix="onefd-fuse.")
        self.source, self.path = self.top + "/source", self.top + "/mount"
        os.mkdir(self.source)
        os.mkdir(self.path)
        self.faulty = int(subprocess.run(
            [FAULTY_FS, *below, self.top + "/socket", self.source],
            check=True, stdout=subprocess.PIPE, text=True).stdout)
        self.disk = Disk(self.top + "/socket")
        self.said = open(self.top + "/said", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [DAEMON, "-f", *options, "-o", "source=" + self.source, self.path],
            stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said)
        until(lambda: mounted(self.path) or self.process.poll() is not None)

    def forget_below(self, name):
        """The pages of the source: those that faulty_fs's own mount keeps."""
        fd = os.open(f"{self.source}/{name}", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def open(self, name, flags=os.O_RDONLY):
        fd = os.open(f"{self.path}/{name}", flags)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        return fd

    def gone(self):
        assert self.process.wait(PATIENCE) == 0 or not OURS, self.text()
        assert not mounted(self.path), "it is still mounted"
        # libfuse remarks on its own that a request was on its way when the device went.
        said = [line for line in self.text().splitlines() if "reading device" not in line]
        assert not OURS or not said, said

    def text(self):
        self.said.seek(0)
        return self.said.read()

    def stop(self):
        subprocess.run(["umount", self.path], check=True)
        self.gone()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.process.returncode is None:
                self.stop()
        finally:
            self.disk.close()
            end_daemon(self.process, self.path, self.source)
            self.said.close()
            subprocess.run(["rm", "-rf", "--one-file-system", self.top], check=True)


def close(fd):
    """Of a mount that is gone."""
    try:
        os.close(fd)
    except OSError as error:
        assert error.errno in (errno.ENOTCONN, errno.ECONNABORTED), error


def mounts():
    """With the page cache below, without, and with one not used."""
    yield Mount()
    yield Mount(below=["-d"])
    if OURS:
        yield Mount("--direct", below=["-d"])


class Reader(threading.Thread):
    """One read in a thread of its own: its bytes or its error."""

    def __init__(self, fd, size, offset):
        super().__init__(daemon=True)
        self.args, self.result = (fd, size, offset), None
        self.start()

    def run(self):
        try:
            self.result = os.pread(*self.args)
        except OSError as error:
            self.result = error.errno

    def get(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "a read does not return"
        return self.result


def errors_below_reach_the_application():
    for mount in mounts():
        with mount:
            fd = mount.open("a")
            for number, at in ((errno.EIO, 40 * PAGE), (errno.ENOSPC, 400 * PAGE),
                               (errno.EDQUOT, 800 * PAGE)):
                mount.disk.order("fail", "a", at, at + PAGE, number)
                assert Reader(fd, PAGE, at).get() in (number, errno.EIO), errno.errorcode[number]
                assert Reader(fd, PAGE, at + PAGE).get() == pattern(at + PAGE, PAGE)
            mount.disk.order("release")
            assert Reader(fd, PAGE, 40 * PAGE).get() == pattern(40 * PAGE, PAGE)
            os.close(fd)
            fd = mount.open("a", os.O_RDWR)
            try:
                os.pwrite(fd, b"x", 0)
                os.fsync(fd)
                raise AssertionError("a write to a read-only file succeeds")
            except OSError as error:
                assert error.errno in (errno.EROFS, errno.EIO), error
            os.close(fd)


def never_seen(number):
    """Below, reads answer it for a while: the application waits, and gets its bytes."""
    for mount in mounts():
        with mount:
            fd = mount.open("a")
            first = mount.disk.order("reads")
            mount.disk.order("fail", "a", 0, 1 << 26, number)
            readers = [Reader(fd, PAGE, i * 50 * PAGE) for i in range(8)]
            until(lambda: mount.disk.order("reads") >= first + 24
                  or not any(reader.is_alive() for reader in readers))
            assert os.stat(mount.path + "/b").st_size == 1 << 26
            mount.disk.order("release")
            for i, reader in enumerate(readers):
                assert reader.get() == pattern(i * 50 * PAGE, PAGE), (mount.path, reader.result)
            os.close(fd)


def eagain_below_never_reaches_the_application():
    if not OURS:
        raise Skip("not for " + DAEMON)
    never_seen(errno.EAGAIN)


def eintr_below_never_reaches_the_application():
    if not OURS:
        raise Skip("not for " + DAEMON)
    never_seen(errno.EINTR)


def short_reads_below_are_completed():
    """A file does not end where a read below was short."""
    if not OURS:
        raise Skip("not for " + DAEMON)
    for options in ([], ["--direct"]):
        with Mount(*options, below=["-d"]) as mount:
            fd = mount.open("a")
            for size in 512, 1000, PAGE, 10000:
                mount.disk.order("cut", "a", 0, 1 << 26, size)
                at = size * PAGE
                assert Reader(fd, 3 * PAGE + 7, at + 5).get() == pattern(at + 5, 3 * PAGE + 7), size
                mount.disk.order("release")
            os.close(fd)


def reads_that_wait_hold_up_nobody_else():
    """The source knows no reads that do not wait: fewer of them than there are workers."""
    for options, below in ((), ()), ((), ("-d",)):
        with Mount(*options, below=below) as mount:
            warm, cold = mount.open("b"), mount.open("a")
            assert Reader(warm, PAGE, 0).get() == pattern(0, PAGE)
            mount.disk.order("hold", "a", 0, 1 << 26)
            readers = [Reader(cold, PAGE, i * 50 * PAGE) for i in range(6)]
            mount.disk.wait_held(6)
            os.posix_fadvise(warm, 0, 0, os.POSIX_FADV_DONTNEED)
            assert Reader(warm, PAGE, 0).get() == pattern(0, PAGE)
            os.close(mount.open("b"))
            os.stat(mount.path + "/b")
            assert all(reader.is_alive() for reader in readers)
            mount.disk.order("release")
            for i, reader in enumerate(readers):
                assert reader.get() == pattern(i * 50 * PAGE, PAGE)
            os.close(cold)
            os.close(warm)


def killed_reader_need_not_wait_for_the_disk():
    with Mount(below=["-d"]) as mount:
        mount.disk.order("hold", "a", 0, 1 << 26)
        with subprocess.Popen(["cat", mount.path + "/a"], stdout=subprocess.DEVNULL) as reader:
            mount.disk.wait_held(1)
            reader.kill()
            assert reader.wait(PATIENCE) == -signal.SIGKILL
        mount.disk.order("release")


def hold_reads(mount):
    fd = mount.open("a")
    mount.disk.order("hold", "a", 0, 1 << 26)
    readers = [Reader(fd, PAGE, i * 50 * PAGE) for i in range(4)]
    mount.disk.wait_held(1)
    return fd, readers


def stopped_while_reads_wait_ends_when_they_are_done():
    for mount in mounts():
        with mount:
            fd, readers = hold_reads(mount)
            mount.process.send_signal(signal.SIGTERM)
            mount.disk.order("release")
            for i, reader in enumerate(readers):
                assert reader.get() in (pattern(i * 50 * PAGE, PAGE), errno.ENOTCONN,
                                        errno.ECONNABORTED), reader.result
            close(fd)
            mount.gone()


def stopped_while_reads_are_tried_again_ends_at_once():
    """They would be for a minute."""
    if not OURS:
        raise Skip("not for " + DAEMON)
    with Mount(below=["-d"]) as mount:
        fd = mount.open("a")
        first = mount.disk.order("reads")
        mount.disk.order("fail", "a", 0, 1 << 26, errno.EAGAIN)
        reader = Reader(fd, PAGE, 0)
        until(lambda: mount.disk.order("reads") >= first + 4)
        mount.process.send_signal(signal.SIGTERM)
        mount.process.wait(PATIENCE / 2)
        assert reader.get() in (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED), reader.result
        close(fd)
        mount.gone()


def aborted_while_reads_wait_ends_when_they_are_done():
    for mount in mounts():
        with mount:
            fd, readers = hold_reads(mount)
            abort(mount)
            for reader in readers:
                assert reader.get() in (errno.ENOTCONN, errno.ECONNABORTED), reader.result
            close(fd)
            mount.disk.order("release")
            if mount.process.wait(PATIENCE) and OURS:
                raise AssertionError(mount.text())


TESTS = (
    errors_below_reach_the_application, eagain_below_never_reaches_the_application,
    eintr_below_never_reaches_the_application, short_reads_below_are_completed,
    reads_that_wait_hold_up_nobody_else, killed_reader_need_not_wait_for_the_disk,
    stopped_while_reads_wait_ends_when_they_are_done, stopped_while_reads_are_tried_again_ends_at_once,
    aborted_while_reads_wait_ends_when_they_are_done)


def main():
    begin()
    return run(TESTS, sys.argv[3:])


sys.exit(main())
