#!/usr/bin/env python3
"""What onefd-fuse keeps of names and identities, beyond what any file system must, in TAP.

Usage: program_fuse_names.py ONEFD_FUSE [TEST]...

Over each file system of ONEFD_TEST_DIRS (mounts.sh), or where temporary files are.
"""
import ctypes
import errno
import os
import random
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from fuse_mounts import begin, end_daemon, mounted, targets
import tap
from tap import PATIENCE, Skip, find_places, needs, until

DAEMON = os.path.realpath(sys.argv[1])
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = LIBC.readdir64.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long
LIBC.opendir.argtypes = (ctypes.c_char_p,)
LIBC.readdir64.argtypes = LIBC.closedir.argtypes = LIBC.telldir.argtypes = (ctypes.c_void_p,)
LIBC.rewinddir.argtypes = (ctypes.c_void_p,)
LIBC.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)
AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def unmount(path):
    """A daemon gives a mount back when nobody has used it for a moment."""
    until(lambda: subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False).returncode == 0)


def fails(number, call, *arguments, **more):
    try:
        call(*arguments, **more)
    except OSError as error:
        assert error.errno == number, f"{error}, not {errno.errorcode[number]}"
    else:
        raise AssertionError(f"it succeeds, not {errno.errorcode[number]}")


def write(path, text=""):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Mount:
    """A directory at a mountpoint beside it, or over it."""

    place = None

    def __init__(self, *options, limit=None, source="source", path="mount", before=None, wrap=(), prepare=None):
        self.top = tempfile.mkdtemp(prefix="onefd-fuse.", dir=self.place)
        os.chmod(self.top, 0o755)
        self.source, self.path = f"{self.top}/{source}", f"{self.top}/{path}"
        os.makedirs(self.source)
        os.makedirs(self.path, exist_ok=True)
        if prepare:
            prepare(self)
        escaped = self.source.replace("\\", "\\\\").replace(",", "\\,")

        def begin():
            if limit:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            if before:
                before()

        self.said = open(self.top + "/said", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [*wrap, DAEMON, "-f", *options, "-o", "source=" + escaped, self.path],
            stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said, preexec_fn=begin)
        until(lambda: mounted(self.path) or self.process.poll() is not None)

    def text(self):
        self.said.seek(0)
        return self.said.read()

    def stop(self):
        os.chdir("/")
        run("umount", self.path)
        assert self.process.wait(PATIENCE) == 0, self.text()
        assert self.text() == "", self.text()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.process.returncode is None:
                self.stop()
        finally:
            os.chdir("/")
            end_daemon(self.process, self.path)
            self.said.close()
            with open("/proc/self/mountinfo", encoding="utf-8") as file:
                below = [line.split()[4] for line in file if line.split()[4].startswith(self.top + "/")]
            for path in reversed(below):
                run("umount", "-l", path)
            run("rm", "-rf", "--one-file-system", self.top)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def crowd(mount, count=2000):
    """As many others as it takes that no descriptor is held for what was before: new ones,
    for of those that it knows the kernel does not ask."""
    directory = tempfile.mkdtemp(prefix="crowd.", dir=mount.source)
    for i in range(count):
        write(f"{directory}/{i}")
    for i in range(count):
        os.stat(f"{mount.path}/{os.path.basename(directory)}/{i}")


# ---- descriptors and handles --------------------------------------------------------------


def walks_and_open_files_share_few_descriptors():
    with Mount(limit=200) as mount:
        for i in range(1000):
            write(f"{mount.source}/{i}", str(i))
        files = [open(f"{mount.path}/{i}", encoding="ascii") for i in range(100)]
        for _ in range(2):
            assert run("find", mount.path, "-type", "f", "-newermt", "2000-01-01").count("\n") == 1000
            run("grep", "-rl", "[0-9]", mount.path)
            assert all(os.stat(f"{mount.path}/{i}").st_size == len(str(i)) for i in range(1000))
        workers = [subprocess.Popen(["grep", "-rl", "[0-9]", mount.path], stdout=subprocess.PIPE)
                   for _ in range(4)]
        assert [len(worker.communicate()[0].splitlines()) for worker in workers] == [1000] * 4
        for i, file in enumerate(files):
            assert file.read() == str(i)
            file.close()
        until(lambda: mount.descriptors() < 150)


def more_open_files_than_descriptors_is_emfile():
    with Mount(limit=100) as mount:
        write(mount.source + "/file", "text")
        files = []
        try:
            while len(files) < 200:
                files.append(open(mount.path + "/file", encoding="ascii"))
        except OSError as error:
            assert error.errno in (errno.EMFILE, errno.ENFILE), error
        assert 40 < len(files) < 100, len(files)
        assert all(file.read() == "text" for file in files)
        for file in files:
            file.close()
        until(lambda: mount.descriptors() < 60)
        assert read(mount.path + "/file") == "text"


def what_has_no_name_is_there_for_who_has_it():
    with Mount(limit=100) as mount:
        for name in "file", "held":
            write(f"{mount.path}/{name}", "text")
        os.mkdir(mount.path + "/directory")
        fd = os.open(mount.path + "/file", os.O_RDWR)
        held = os.open(mount.path + "/held", os.O_PATH)
        os.chdir(mount.path + "/directory")
        crowd(mount)
        os.unlink(mount.path + "/file")
        write(mount.path + "/other", "other")
        os.rename(mount.path + "/other", mount.path + "/held")
        os.rmdir(mount.path + "/directory")
        crowd(mount)
        os.fchmod(fd, 0o640)
        os.ftruncate(fd, 2)
        os.utime(fd, (1, 2))
        os.setxattr(f"/proc/self/fd/{fd}", "user.colour", b"blue")
        status = os.fstat(fd)
        assert (status.st_nlink, status.st_size, status.st_mtime) == (0, 2, 2), status
        assert stat.S_IMODE(status.st_mode) == 0o640 and os.pread(fd, 9, 0) == b"te"
        assert os.fstat(held).st_nlink == 0 and read(f"/proc/self/fd/{held}") == "text"
        assert os.stat(".").st_mode and os.listdir(".") == []
        fails(errno.ENOENT, open, "new", "w", encoding="ascii")
        os.close(fd)
        os.close(held)
        os.chdir("/")


def what_was_removed_below_is_there_while_it_is_open():
    with Mount(limit=100, prepare=lambda mount: write(mount.source + "/file", "text")) as mount:
        fd = os.open(mount.path + "/file", os.O_RDWR)
        os.unlink(mount.source + "/file")
        crowd(mount)
        os.fchmod(fd, 0o640)
        assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 9, 0) == b"text"
        os.close(fd)


def number_used_anew_is_no_old_inode():
    with Mount("-otimeout=0", limit=100) as mount:
        again = 0
        for i in range(20):
            write(mount.source + "/old", "old")
            number = os.stat(mount.source + "/old").st_ino
            fd = os.open(mount.path + "/old", os.O_PATH)
            crowd(mount, 300)
            os.unlink(mount.source + "/old")
            write(mount.source + "/new", f"new {i}")
            again += os.stat(mount.source + "/new").st_ino == number
            assert read(mount.path + "/new") == f"new {i}"
            try:
                assert os.fstat(fd).st_nlink == 0 and os.fstat(fd).st_size == 3
            except OSError as error:
                assert error.errno == errno.ESTALE, error
            os.close(fd)
            os.unlink(mount.path + "/new")
        if not again:
            raise Skip("no number was used anew")


def hard_links_share_a_number():
    with Mount(limit=100) as mount:
        write(mount.path + "/a", "text")
        os.link(mount.path + "/a", mount.path + "/b")
        os.symlink("a", mount.path + "/s")
        os.link(mount.path + "/s", mount.path + "/t", follow_symlinks=False)
        crowd(mount, 300)
        assert os.path.samefile(mount.path + "/a", mount.path + "/b")
        assert os.stat(mount.path + "/a").st_ino == os.stat(mount.source + "/b").st_ino
        assert os.stat(mount.path + "/b").st_nlink == 2 and os.readlink(mount.path + "/t") == "a"
        numbers = {entry.name: entry.inode() for entry in os.scandir(mount.path)}
        assert numbers["a"] == numbers["b"] == os.stat(mount.path + "/a").st_ino
        os.unlink(mount.path + "/a")
        assert os.stat(mount.path + "/b").st_nlink == 1 and read(mount.path + "/b") == "text"


def act_at_random(top, seed, count):
    """What may go wrong is that others were there before."""
    chance = random.Random(seed)

    def name():
        return f"{top}/{chance.randrange(4)}/{chance.randrange(40)}"

    def make():
        with open(name(), "r+b" if chance.randrange(4) else "wb", buffering=0) as file:
            os.write(file.fileno(), b"text")
            assert os.fstat(file.fileno()).st_size in (0, 4, 10)

    def read_all():
        with open(name(), "rb", buffering=0) as file:
            os.unlink(name())
            assert os.fstat(file.fileno()).st_mode and file.read(4) is not None

    acts = (make, make, read_all, lambda: os.mkdir(name()), lambda: os.rmdir(name()), lambda: os.unlink(name()),
            lambda: os.rename(name(), name()), lambda: os.link(name(), name()), lambda: os.symlink("x", name()),
            lambda: rename(name(), name(), EXCHANGE), lambda: os.chmod(name(), 0o600), lambda: os.stat(name()),
            lambda: [entry.stat(follow_symlinks=False) for entry in os.scandir(os.path.dirname(name()))],
            lambda: os.utime(name()), lambda: os.truncate(name(), 10), lambda: os.listdir(name()),
            lambda: os.setxattr(name(), "user.a", b"b"), lambda: os.getxattr(name(), "user.a"))
    for _ in range(count):
        try:
            chance.choice(acts)()
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR,
                                   errno.EPERM, errno.ENODATA, errno.EINVAL, errno.ENOTSUP, errno.ELOOP), error


def many_at_once_meet_no_strange_error():
    with Mount(limit=100) as mount:
        for i in range(4):
            os.mkdir(f"{mount.source}/{i}")
        workers = []
        for seed in range(8):
            workers.append(os.fork())
            if not workers[-1]:
                try:
                    act_at_random(mount.path, seed, 4000)
                    os._exit(0)
                except BaseException:  # pylint: disable=broad-except
                    traceback.print_exc()
                    os._exit(1)
        results = [os.waitpid(pid, 0)[1] for pid in workers]
        assert results == [0] * 8, results
        shown = [f"{root}/{name}"[len(mount.path):] for root, ds, fs in os.walk(mount.path) for name in ds + fs]
        there = [f"{root}/{name}"[len(mount.source):] for root, ds, fs in os.walk(mount.source) for name in ds + fs]
        assert sorted(shown) == sorted(there)
        for name in there:
            a, b = os.lstat(mount.path + name), os.lstat(mount.source + name)
            assert (a.st_ino, a.st_mode, a.st_nlink, a.st_size) == (b.st_ino, b.st_mode, b.st_nlink, b.st_size), name


def large_files_removed_at_once_delay_nobody_for_descriptors():
    with Mount(limit=100) as mount:
        fds = []
        for i in range(30):
            fds.append(os.open(f"{mount.path}/{i}", os.O_CREAT | os.O_RDWR, 0o644))
            os.posix_fallocate(fds[-1], 0, 4 << 20)
            os.unlink(f"{mount.path}/{i}")
        for fd in fds:
            os.close(fd)
        for i in range(200):
            write(f"{mount.path}/{i}", "text")
            assert read(f"{mount.path}/{i}") == "text"
            os.unlink(f"{mount.path}/{i}")
        until(lambda: mount.descriptors() < 60)
        assert os.listdir(mount.path) == []


# ---- mounts ---------------------------------------------------------------------------------


def another_file_system_below_is_shown_and_can_be_unmounted():
    with Mount() as mount:
        os.mkdir(mount.source + "/sub")
        for i in range(3):
            run("mount", "-t", "tmpfs", "tmpfs", mount.source + "/sub")
            write(mount.source + "/sub/file", f"text {i}")
            os.mkdir(mount.source + "/sub/directory")
            until(lambda: os.path.exists(mount.path + "/sub/file"))
            fd = os.open(mount.path + "/sub/directory", os.O_PATH)
            assert read(mount.path + "/sub/file") == f"text {i}"
            numbers = [os.stat(mount.path + name).st_ino for name in ("", "/sub", "/sub/file", "/sub/directory")]
            assert len(set(numbers)) == 4, numbers
            assert {entry.name: entry.inode() for entry in os.scandir(mount.path + "/sub")} == {
                "file": numbers[2], "directory": numbers[3]}
            fails(errno.EXDEV, os.rename, mount.path + "/sub/file", mount.path + "/file")
            fails(errno.EXDEV, os.link, mount.path + "/sub/file", mount.path + "/file")
            fails(errno.EBUSY, os.rmdir, mount.path + "/sub")
            held = open(mount.path + "/sub/file", encoding="ascii")
            assert subprocess.run(["umount", mount.source + "/sub"], stderr=subprocess.DEVNULL,
                                  check=False).returncode
            held.close()
            # In use again after it was let go.
            until(lambda: not any(target.startswith(mount.source + "/sub") for target in targets(mount.process)))
            assert os.fstat(fd).st_nlink == 2 and os.listdir(f"/proc/self/fd/{fd}") == []
            assert read(mount.path + "/sub/file") == f"text {i}"
            unmount(mount.source + "/sub")
            until(lambda: not os.path.exists(mount.path + "/sub/file"))
            fails(errno.ESTALE, os.listdir, f"/proc/self/fd/{fd}")
            os.close(fd)


def what_is_no_file_is_found_where_a_mount_was_let_go():
    with Mount("-o", "timeout=1000") as mount:
        os.mkdir(mount.source + "/sub")
        run("mount", "-t", "tmpfs", "tmpfs", mount.source + "/sub")
        os.symlink("nowhere", mount.source + "/sub/link")
        os.mkfifo(mount.source + "/sub/fifo")
        for name in ("link", "fifo"):
            os.stat(mount.path + "/sub")
            until(lambda: not any(target.startswith(mount.source + "/sub") for target in targets(mount.process)))
            assert os.lstat(f"{mount.path}/sub/{name}").st_nlink == 1


def bind_mounts_below_are_mounts():
    with Mount() as mount:
        os.mkdir(mount.source + "/a")
        os.mkdir(mount.source + "/b")
        write(mount.source + "/a/file", "text")
        write(mount.source + "/plain")
        run("mount", "--bind", mount.source + "/a", mount.source + "/b")
        run("mount", "--bind", mount.source + "/a/file", mount.source + "/plain")
        until(lambda: os.path.exists(mount.path + "/b/file"))
        assert read(mount.path + "/b/file") == read(mount.path + "/plain") == "text"
        fails(errno.EXDEV, os.rename, mount.path + "/b/file", mount.path + "/a/other")
        run("mount", "-o", "remount,bind,ro", mount.source + "/b")
        fails(errno.EROFS, os.mkdir, mount.path + "/b/new")
        os.mkdir(mount.path + "/a/new")
        unmount(mount.source + "/b")
        unmount(mount.source + "/plain")
        until(lambda: os.listdir(mount.path + "/b") == [])


def mounted_over_its_own_source():
    with Mount(path="source") as mount:
        assert os.listdir(mount.path) == []
        write(mount.path + "/file", "text")
        assert read(mount.path + "/file") == "text"
        unmount_and_see = mount.path
        mount.stop()
        assert read(unmount_and_see + "/file") == "text"


def mounted_below_its_own_source():
    with Mount(path="source/mount") as mount:
        write(mount.path + "/file", "text")
        assert read(mount.source + "/file") == "text"
        assert sorted(os.listdir(mount.path)) == ["file", "mount"]
        fails(errno.ELOOP, os.stat, mount.path + "/mount")
        assert subprocess.run(["find", mount.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=PATIENCE, check=False).returncode == 1


def source_that_is_unplugged_is_an_error():
    with tempfile.TemporaryDirectory(prefix="onefd-fuse.") as top:
        write(top + "/image")
        os.truncate(top + "/image", 32 << 20)
        run("mkfs.ext4", "-q", "-F", top + "/image")
        with Mount("-otimeout=0", prepare=lambda mount: run("mount", "-o", "loop", top + "/image", mount.source)) as mount:
            write(mount.path + "/file", "text")
            os.mkdir(mount.path + "/directory")
            run("umount", "-l", mount.source)
            os.truncate(top + "/image", 0)
            # What the daemon has in memory may still be answered.
            for call in (lambda: os.listdir(mount.path + "/directory"),
                         lambda: write(mount.path + "/other", "x" * 100000),
                         lambda: os.mkdir(mount.path + "/new")):
                try:
                    call()
                except OSError as error:
                    assert error.errno in (errno.EIO, errno.ESTALE, errno.EROFS, errno.EUCLEAN), error


def over_another(*options, **more):
    """A mount whose source is one of the daemon's, too: mount.lower."""
    def below(mount):
        mount.lower = Mount("-otimeout=1000")
        os.rmdir(mount.source)
        os.symlink(mount.lower.path, mount.source)

    return Mount(*options, prepare=below, **more)


def without_handles_each_inode_has_a_descriptor():
    mount = over_another("--stats", limit=300)
    with mount.lower, mount:
        for i in range(100):
            write(f"{mount.path}/{i}", str(i))
        assert sorted(map(int, os.listdir(mount.path))) == list(range(100))
        assert all(read(f"{mount.path}/{i}") == str(i) for i in range(100))
        mount.process.send_signal(signal.SIGUSR1)
        until(lambda: "no file handles" in mount.text())
        for i in range(100, 1000):
            write(f"{mount.lower.source}/{i}", str(i))
        assert len(os.listdir(mount.path)) == 1000
        try:
            fds = []
            for i in range(1000):
                fds.append(os.open(f"{mount.path}/{i}", os.O_PATH))
        except OSError as error:
            assert error.errno == errno.EMFILE, error
        for fd in fds:
            os.close(fd)
        run("umount", mount.path)
        assert mount.process.wait(PATIENCE) == 0


def user_without_privilege_mounts():
    def become():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    def own(mount):
        os.chown(mount.source, 65534, 65534)
        os.chown(mount.path, 65534, 65534)
        write(mount.source + "/ours", "text")
        os.chmod(mount.source + "/ours", 0o600)

    if not os.stat("/dev/fuse").st_mode & 0o002:
        raise Skip("/dev/fuse is for root alone")
    with Mount("--stats", before=become, prepare=own) as mount:
        if mount.process.poll() is not None:
            raise Skip(mount.text().strip())
        # Not even root may go there.
        as_user(65534, 65534, "027", "/", f"cd {mount.path} && mkdir a && echo text >a/f && ln a/f a/g && mv a/g b && "
                "ln -s b s && ls -l && cat s && ! cat ours && rm -r a b s")
        mount.process.send_signal(signal.SIGUSR1)
        until(lambda: "without privilege" in mount.text())
        run("umount", mount.path)
        assert mount.process.wait(PATIENCE) == 0


def waits(path):
    """Whether a task of /proc is asleep within a request to a daemon."""
    return "request_wait_answer" in read(path + "/wchan")


def who_is_killed_while_all_workers_wait_leaves_no_descriptor():
    """The loop has found what a worker is to look at; who asked is dead before one is free."""
    mount = over_another("-otimeout=1000")
    with mount.lower, mount:
        write(mount.source + "/late")
        for i in range(30):
            write(f"{mount.path}/{i}")
        # What the kernel knows of the directories it does not ask.
        for path in mount.source, mount.path:
            os.stat(path)
        mount.lower.process.send_signal(signal.SIGSTOP)
        tasks = f"/proc/{mount.process.pid}/task"
        try:
            others = [subprocess.Popen(["chmod", "600", f"{mount.path}/{i}"]) for i in range(30)]
            until(lambda: all(waits(f"/proc/{other.pid}") for other in others) and
                  sum(waits(f"{tasks}/{task}") for task in os.listdir(tasks)) >= 8)
            with subprocess.Popen(["cat", mount.path + "/late"]) as looker:
                until(lambda: waits(f"/proc/{looker.pid}"))
                looker.kill()
        finally:
            mount.lower.process.send_signal(signal.SIGCONT)
        assert looker.returncode == -signal.SIGKILL and [other.wait() for other in others] == [0] * 30
        until(lambda: mount.lower.path + "/late" not in targets(mount.process))


# ---- who makes things ------------------------------------------------------------------------


def as_user(uid, gid, umask, place, script):
    """In @place, to which the user may not find the way."""
    done = subprocess.run(
        ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "sh", "-c", f"umask {umask}; {script}"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


def as_ids(uid, gid, place, call):
    pid = os.fork()
    if not pid:
        try:
            os.chdir(place)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            call()
            os._exit(0)
        except BaseException:  # pylint: disable=broad-except
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def new_things_belong_to_who_makes_them():
    with Mount("-oallow_other,dev,suid") as mount:
        os.chmod(mount.path, 0o777)
        as_user(1000, 2000, "027", mount.path, "mkdir d; >f; mkfifo p; ln -s f s")
        for name, mode in ("d", 0o750), ("f", 0o640), ("p", 0o640), ("s", 0o777):
            status = os.lstat(f"{mount.source}/{name}")
            assert (status.st_uid, status.st_gid) == (1000, 2000), (name, status)
            assert stat.S_IMODE(status.st_mode) == mode, (name, status)
        os.umask(0)
        os.mknod(mount.path + "/null", 0o604 | stat.S_IFCHR, os.makedev(1, 3))
        os.umask(0o022)
        status = os.stat(mount.path + "/null")
        assert status.st_rdev == os.makedev(1, 3) and mode_of(mount.path + "/null") == 0o604
        write(mount.path + "/null", "nothing")
        os.mkdir(mount.path + "/team")
        os.chown(mount.path + "/team", -1, 3000)
        os.chmod(mount.path + "/team", 0o2777)
        as_user(1000, 2000, "022", mount.path + "/team", "mkdir d; >f")
        assert os.stat(mount.source + "/team/d").st_gid == os.stat(mount.source + "/team/f").st_gid == 3000
        assert mode_of(mount.source + "/team/d") == 0o2755 and mode_of(mount.source + "/team/f") == 0o644


ACL_ENTRY = struct.Struct("<HHI")


def acl(user, group, other, named=None):
    entries = [(1, user, 0xffffffff)] + ([(2, named[1], named[0])] if named else []) + [
        (4, group, 0xffffffff)] + ([(16, named[1] | group, 0xffffffff)] if named else []) + [
        (32, other, 0xffffffff)]
    return struct.pack("<I", 2) + b"".join(ACL_ENTRY.pack(*entry) for entry in entries)


def a_sticky_directory_protects_what_has_the_name_now():
    """The kernel believes that it is the caller's own."""
    def removes():
        fails(errno.EPERM, os.unlink, "file")
        fails(errno.EPERM, os.rename, "file", "taken")
        fails(errno.EPERM, os.rename, "own", "file")
        fails(errno.EPERM, os.rmdir, "directory")
        os.rename("own", "renamed")
        os.unlink("renamed")

    with Mount("-oallow_other,timeout=1000") as mount:
        os.chmod(mount.path, 0o1777)
        as_ids(1000, 2000, mount.path, lambda: [write("file"), write("own"), os.mkdir("directory")])
        write(mount.source + "/another", "another's")
        os.mkdir(mount.source + "/others")
        os.chown(mount.source + "/another", 3000, 3000)
        os.rename(mount.source + "/another", mount.source + "/file")
        os.rename(mount.source + "/others", mount.source + "/directory")
        as_ids(1000, 2000, mount.path, removes)
        assert read(mount.source + "/file") == "another's"
        assert sorted(os.listdir(mount.source)) == ["directory", "file"]
        # Who is served next by the same worker has all rights again.
        for _ in range(20):
            as_ids(1000, 2000, mount.path, lambda: [write("own"), os.unlink("own")])
            os.chmod(mount.path + "/file", 0o600)
        os.chown(mount.path, 1000, -1)
        as_ids(1000, 2000, mount.path, lambda: os.unlink("file"))
        os.rmdir(mount.path + "/directory")


def a_worker_is_root_again_after_it_acted_as_its_caller():
    """The source is told who asks: root takes no set-id bits."""
    mount = over_another("-oallow_other")
    with mount.lower, mount:
        os.chmod(mount.path, 0o777)
        write(mount.path + "/file", "text")
        os.chmod(mount.path + "/file", 0o4755)
        for i in range(20):
            as_ids(1000, 2000, mount.path, lambda i=i: os.mkdir(str(i)))
            os.truncate(mount.path + "/file", i)
            assert mode_of(mount.lower.source + "/file") == 0o4755


def access_control_lists_of_the_source_hold():
    with Mount("-oallow_other") as mount:
        os.chmod(mount.path, 0o777)
        try:
            os.setxattr(mount.source, "system.posix_acl_default", acl(7, 7, 5))
        except OSError as error:
            raise Skip(f"no ACL here: {error}") from error
        until(lambda: "system.posix_acl_default" in os.listxattr(mount.path))
        as_user(1000, 2000, "077", mount.path, "mkdir d; >f; mkfifo p")
        assert mode_of(mount.source + "/d") == 0o775, oct(mode_of(mount.source + "/d"))
        assert mode_of(mount.source + "/f") == mode_of(mount.source + "/p") == 0o664
        assert "system.posix_acl_default" in os.listxattr(mount.path + "/d")
        os.removexattr(mount.path, "system.posix_acl_default")
        as_user(1000, 2000, "077", mount.path, ">g")
        assert mode_of(mount.source + "/g") == 0o600
        write(mount.path + "/secret", "text")
        os.chmod(mount.path + "/secret", 0o600)
        os.setxattr(mount.path + "/secret", "system.posix_acl_access", acl(6, 0, 0, named=(1000, 4)))
        as_user(1000, 2000, "022", mount.path, "cat secret")
        as_user(1001, 2000, "022", mount.path, "! cat secret")
        assert mode_of(mount.path + "/secret") == 0o640
        os.chown(mount.path + "/secret", 1000, 3000)
        os.chmod(mount.path + "/secret", 0o2750)
        for gid, mode in (3000, 0o2751), (2000, 0o751):
            as_ids(1000, gid, mount.path, lambda: os.setxattr("secret", "system.posix_acl_access", acl(7, 5, 1)))
            assert mode_of(mount.source + "/secret") == mode, (gid, oct(mode_of(mount.source + "/secret")))


def set_id_bits_go_when_others_change_a_file():
    with Mount("-oallow_other,suid,timeout=1000") as mount:
        os.chmod(mount.path, 0o777)
        os.chmod(mount.source, 0o777)
        write(mount.source + "/other", "text")
        ways = {
            "write": lambda fd: os.write(fd, b"more"),
            "ftruncate": lambda fd: os.ftruncate(fd, 1),
            "truncate": lambda fd: os.truncate("f", 1),
            "open": lambda fd: os.open("f", os.O_WRONLY | os.O_TRUNC),
            "fallocate": lambda fd: os.posix_fallocate(fd, 0, 5000),
            "copy": lambda fd: os.copy_file_range(os.open("other", os.O_RDONLY), fd, 4)}

        def left_of(mode, place, change):
            """The file's own file system says what is right."""
            write(place + "/f", "text")
            os.chown(place + "/f", 0, 2000)
            os.chmod(place + "/f", mode)
            as_ids(1000, gid, place, lambda: change(os.open("f", os.O_WRONLY)))
            left = mode_of(mount.source + "/f")
            assert mode_of(place + "/f") == left
            return oct(left)

        # A group that may not execute keeps its bit, for who is of it.
        for mode in 0o6777, 0o2767, 0o4766, 0o777:
            for gid in 2000, 3000:
                for way, change in ways.items():
                    left = [left_of(mode, place, change) for place in (mount.source, mount.path)]
                    assert left[0] == left[1], (way, oct(mode), gid, left)
        os.chmod(mount.path + "/f", 0o6777)
        with open(mount.path + "/f", "a", encoding="ascii") as file:
            file.write("root may")
        assert mode_of(mount.path + "/f") == mode_of(mount.source + "/f") == 0o6777
        os.chmod(mount.path + "/f", 0o6777)
        os.chown(mount.path + "/f", 1000, 1000)
        assert mode_of(mount.source + "/f") == 0o777
        os.chmod(mount.path + "/f", 0o4755)
        os.setxattr(mount.path + "/f", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
        assert "security.capability" in os.listxattr(mount.path + "/f")
        with open(mount.path + "/f", "a", encoding="ascii") as file:
            file.write("more")
        assert "security.capability" not in os.listxattr(mount.source + "/f")


def set_id_bits_go_where_a_worker_cannot_act_as_its_caller():
    """Root may leave them, even without CAP_SETPCAP."""
    needs("setpriv")
    with Mount("-oallow_other,suid", wrap=["setpriv", "--bounding-set=-setpcap"]) as mount:
        os.chmod(mount.source, 0o777)
        write(mount.source + "/f", "text")
        for change in (lambda: write("f", "more"), lambda: os.truncate("f", 1),
                       lambda: os.write(os.open("f", os.O_WRONLY), b"more")):
            os.chmod(mount.source + "/f", 0o6777)
            as_ids(1000, 2000, mount.path, change)
            assert mode_of(mount.source + "/f") == mode_of(mount.path + "/f") == 0o777


def set_id_bits_lost_below_are_not_obeyed():
    for opened_before in False, True:
        with Mount("-oallow_other,suid,timeout=1000") as mount:
            run("cp", shutil.which("id"), mount.source + "/id")
            os.chmod(mount.source + "/id", 0o4777)
            os.chmod(mount.source, 0o755)
            if opened_before:
                as_ids(1000, 2000, mount.path, lambda: subprocess.run(["./id"], check=True, stdout=subprocess.DEVNULL))
            assert mode_of(mount.path + "/id") == 0o4777
            as_ids(1000, 2000, mount.source, lambda: os.write(os.open("id", os.O_WRONLY | os.O_APPEND), b"more"))
            assert mode_of(mount.source + "/id") == 0o777
            as_ids(1000, 2000, mount.path, lambda: subprocess.run("test $(./id -u) = 1000", shell=True, check=True))
            assert mode_of(mount.path + "/id") == 0o777


def a_mode_set_while_set_id_bits_go_stays():
    """It would be lost if what was seen before were put back."""
    with tempfile.NamedTemporaryFile("r", prefix="onefd-fuse.") as log, \
            Mount("-oallow_other,suid", wrap=strace(log.name, "chmod,fchmod,fchownat",
                                                    "chmod,fchmod,fchownat:delay_enter=500000")) as mount:
        os.chmod(mount.source, 0o777)
        write(mount.source + "/f", "text")
        os.chmod(mount.source + "/f", 0o4777)
        changes = threading.Thread(target=as_ids, args=(1000, 2000, mount.path, lambda: write("f", "more")))
        changes.start()
        until(lambda: log.seek(0) == 0 and "ch" in log.read())
        os.chmod(mount.source + "/f", 0o4700)
        changes.join()
        assert mode_of(mount.source + "/f") == 0o700, oct(mode_of(mount.source + "/f"))


# ---- attributes ----------------------------------------------------------------------------------


def extended_attributes_of_any_size():
    with Mount() as mount:
        write(mount.path + "/f")
        os.symlink("nowhere", mount.path + "/s")
        try:
            os.setxattr(mount.source + "/f", "user.probe", b"")
            os.setxattr(mount.source + "/s", "trusted.probe", b"", follow_symlinks=False)
        except OSError as error:
            raise Skip(f"no attributes here: {error}") from error
        for size in 0, 1, 255, 1000:
            os.setxattr(mount.path + "/f", "user.a", b"v" * size)
            assert os.getxattr(mount.source + "/f", "user.a") == os.getxattr(mount.path + "/f", "user.a") == b"v" * size
        os.setxattr(mount.path + "/s", "trusted.b", b"link", follow_symlinks=False)
        assert os.getxattr(mount.source + "/s", "trusted.b", follow_symlinks=False) == b"link"
        assert os.listxattr(mount.path + "/s", follow_symlinks=False) == ["trusted.probe", "trusted.b"] or \
            set(os.listxattr(mount.path + "/s", follow_symlinks=False)) == {"trusted.probe", "trusted.b"}
        os.removexattr(mount.path + "/s", "trusted.b", follow_symlinks=False)
        fails(errno.ENODATA, os.getxattr, mount.path + "/s", "trusted.b", follow_symlinks=False)
        fails(errno.EPERM, os.setxattr, mount.path + "/s", "user.c", b"", follow_symlinks=False)
        fails(errno.EEXIST, os.setxattr, mount.path + "/f", "user.a", b"", os.XATTR_CREATE)
        fails(errno.ENODATA, os.setxattr, mount.path + "/f", "user.c", b"", os.XATTR_REPLACE)
        fails(errno.E2BIG, os.setxattr, mount.path + "/f", "user.a", b"v" * 65537)
        name = os.fsencode(mount.path + "/f")
        for size, expected in (0, 1000), (1000, 1000), (999, -errno.ERANGE):
            buffer = ctypes.create_string_buffer(2000)
            n = LIBC.getxattr(name, b"user.a", buffer, size)
            assert (n if n >= 0 else -ctypes.get_errno()) == expected, (size, n)
        n = LIBC.listxattr(name, None, 0)
        assert n == len(b"user.probe\0user.a\0"), n
        assert LIBC.listxattr(name, ctypes.create_string_buffer(n), n - 1) == -1
        assert ctypes.get_errno() == errno.ERANGE


def as_nobody(call, *arguments):
    """What repr() says of the answer, for a user without privilege."""
    ends = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(ends[1], repr(call(*arguments)).encode())
        finally:
            os._exit(0)
    os.close(ends[1])
    with open(ends[0], encoding="utf-8") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def attributes_of_the_administrator_are_shown_to_nobody_else():
    with Mount("-oallow_other") as mount:
        write(mount.source + "/f")
        write(mount.source + "/g")
        try:
            for name in "trusted.a", "user.b", "trusted.c":
                os.setxattr(mount.source + "/f", name, b"")
            os.setxattr(mount.source + "/g", "trusted.a", b"")
        except OSError as error:
            raise Skip(f"no attributes here: {error}") from error
        os.chmod(mount.top, 0o711)
        assert as_nobody(os.listxattr, mount.path + "/f") == "['user.b']"
        assert as_nobody(os.listxattr, mount.path + "/g") == "[]"
        name = os.fsencode(mount.path + "/f")
        assert as_nobody(LIBC.listxattr, name, None, 0) == str(len("user.b") + 1)
        buffer = ctypes.create_string_buffer(100)
        assert as_nobody(LIBC.listxattr, name, buffer, 7) == "7"
        assert as_nobody(LIBC.listxattr, name, buffer, 6) == "-1"
        assert len(os.listxattr(mount.path + "/f")) >= 3


def writes_are_asked_for_capabilities_once():
    with Mount("-otimeout=1000", "-d") as mount:
        with open(mount.path + "/f", "wb", buffering=0) as file:
            for _ in range(20):
                file.write(b"some")
        assert mount.text().count("opcode: WRITE ") == 20
        assert mount.text().count("opcode: GETXATTR") == 1
        run("umount", mount.path)
        assert mount.process.wait(PATIENCE) == 0


def without_attributes_the_kernel_asks_once():
    with Mount("-ono_xattr", "-d") as mount:
        write(mount.source + "/f", "text")
        os.setxattr(mount.source + "/f", "user.a", b"")
        for _ in range(3):
            fails(errno.EOPNOTSUPP, os.getxattr, mount.path + "/f", "user.a")
            write(mount.path + "/f", "more")
        assert mount.text().count("opcode: GETXATTR") == 1
        run("umount", mount.path)
        assert mount.process.wait(PATIENCE) == 0


def attributes_that_come_are_seen_at_once():
    with Mount("-otimeout=1000") as mount:
        for i in range(100):
            write(f"{mount.path}/{i}")
        try:
            os.setxattr(mount.source + "/0", "user.probe", b"")
        except OSError as error:
            raise Skip(f"no attributes here: {error}") from error
        for _ in range(3):
            run("ls", "-l", mount.path)
        for i in range(1, 100):
            path = f"{mount.path}/{i}"
            fails(errno.ENODATA, os.getxattr, path, "user.a")
            assert os.listxattr(path) == []
            os.setxattr(path, "user.a", b"text")
            assert os.getxattr(path, "user.a") == b"text" and os.listxattr(path) == ["user.a"]
            fails(errno.ENODATA, os.getxattr, path, "user.b")
            os.removexattr(path, "user.a")
            fails(errno.ENODATA, os.getxattr, path, "user.a")
            assert os.listxattr(path) == []


def strace(log, calls, fault):
    """What stands before the daemon."""
    needs("strace")
    os.environ["ASAN_OPTIONS"] = "detect_leaks=0"  # leaks are looked for by ptrace too
    return ["strace", "-f", "-qq", "-o", log, "-e", "trace=" + calls, "-e", "inject=" + fault]


def an_attribute_that_comes_while_it_is_looked_for_is_seen():
    """Nobody remembers that it was not there: who looked comes back late."""
    with tempfile.NamedTemporaryFile("r", prefix="onefd-fuse.") as log, \
            Mount("-otimeout=1000", wrap=strace(log.name, "getxattr,listxattr", "listxattr:delay_exit=500000")) as mount:
        path = mount.path + "/file"
        write(path)
        asks = threading.Thread(target=fails, args=(errno.ENODATA, os.getxattr, path, "user.colour"))
        asks.start()
        until(lambda: log.seek(0) == 0 and "user.colour" in log.read())
        os.setxattr(path, "user.colour", b"blue")
        asks.join()
        assert os.getxattr(path, "user.colour") == b"blue"


def times_are_set_on_links_too():
    with Mount() as mount:
        write(mount.path + "/f")
        os.symlink("f", mount.path + "/s")
        os.utime(mount.path + "/s", ns=(1_000_000_001, 2_000_000_002), follow_symlinks=False)
        os.utime(mount.path + "/f", ns=(3_000_000_003, 4_000_000_004))
        for name, times in ("s", (1_000_000_001, 2_000_000_002)), ("f", (3_000_000_003, 4_000_000_004)):
            status = os.lstat(f"{mount.source}/{name}")
            assert (status.st_atime_ns, status.st_mtime_ns) == times, (name, status)
        os.utime(mount.path + "/f")
        assert abs(os.stat(mount.source + "/f").st_mtime - time.time()) < PATIENCE
        os.chown(mount.path + "/s", 5, 6, follow_symlinks=False)
        assert os.lstat(mount.source + "/s").st_uid == 5 and os.stat(mount.source + "/f").st_uid == 0


# ---- names ------------------------------------------------------------------------------------------


def rename(old, new, flags):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) < 0:
        raise OSError(ctypes.get_errno(), new)


def rename_has_flags():
    with Mount() as mount:
        a, b, c = (f"{mount.path}/{name}" for name in "abc")
        write(a, "a")
        write(b, "b")
        fails(errno.EEXIST, rename, a, b, NOREPLACE)
        rename(a, c, NOREPLACE)
        rename(c, a, 0)
        numbers = os.stat(a).st_ino, os.stat(b).st_ino
        try:
            rename(mount.source + "/a", mount.source + "/b", EXCHANGE)
            rename(mount.source + "/a", mount.source + "/b", EXCHANGE)
        except OSError as error:
            raise Skip(f"the source knows no flags: {error}") from error
        rename(a, b, EXCHANGE)
        assert (read(a), read(b)) == ("b", "a") and (os.stat(b).st_ino, os.stat(a).st_ino) == numbers
        fails(errno.ENOENT, rename, a, c, EXCHANGE)
        fails(errno.EINVAL, rename, a, c, EXCHANGE | NOREPLACE)
        try:
            rename(mount.source + "/a", mount.source + "/c", WHITEOUT)
        except OSError:
            return
        os.unlink(mount.source + "/a")
        os.rename(mount.source + "/c", mount.source + "/a")
        until(lambda: os.path.exists(a) and not os.path.exists(c))
        rename(a, c, WHITEOUT)
        status = os.lstat(mount.source + "/a")
        assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0, status


def names_are_as_long_and_paths_as_deep_as_in_the_source():
    with Mount(limit=100) as mount:
        longest = "n" * 255
        write(f"{mount.path}/{longest}", "text")
        assert read(f"{mount.source}/{longest}") == "text" and os.listdir(mount.path) == [longest]
        fails(errno.ENAMETOOLONG, os.mkdir, f"{mount.path}/{longest}n")
        fails(errno.ENAMETOOLONG, os.stat, f"{mount.path}/{longest}n")
        odd = "a,b\\c\td\ne\"f'\u00e9 \udcff"
        os.mkdir(f"{mount.path}/{odd}")
        assert sorted(os.listdir(mount.source)) == sorted([longest, odd])
        os.chdir(mount.path)
        for i in range(300):
            os.mkdir(f"level {i}")
            os.chdir(f"level {i}")
        write("deepest", "text")
        crowd(mount, 300)
        assert read("deepest") == "text"
        os.chdir("/")
        assert run("find", mount.path, "-name", "deepest").count("/") >= 300
        run("rm", "-r", mount.path + "/level 0")


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]


def next_name(directory):
    entry = LIBC.readdir64(directory)
    return Dirent.from_address(entry).name.decode() if entry else None


def names_in(directory):
    return list(iter(lambda: next_name(directory), None))


def directory_read_while_half_of_it_goes():
    with Mount() as mount:
        for i in range(10000):
            write(f"{mount.source}/{i}")
        directory = LIBC.opendir(os.fsencode(mount.path))
        seen = [next_name(directory) for _ in range(100)]
        for i in range(0, 10000, 2):
            os.unlink(f"{mount.path}/{i}")
            write(f"{mount.path}/new {i}")
        seen += names_in(directory)
        assert len(seen) == len(set(seen)), "a name comes twice"
        assert {str(i) for i in range(1, 10000, 2)} <= set(seen), "a name is missing"
        LIBC.rewinddir(directory)
        assert set(names_in(directory)) == set(os.listdir(mount.source)) | {".", ".."}
        LIBC.closedir(directory)


def directory_is_sought_by_place():
    with Mount() as mount:
        for i in range(3000):
            write(f"{mount.source}/{i}")
        directory = LIBC.opendir(os.fsencode(mount.path))
        places, names = [], []
        while True:
            places.append(LIBC.telldir(directory))
            name = next_name(directory)
            if name is None:
                break
            names.append(name)
        assert sorted(names) == sorted(os.listdir(mount.source) + [".", ".."])
        for i in 2500, 0, 1, 2999, 777, 778, 3001, 12:
            LIBC.seekdir(directory, places[i])
            assert next_name(directory) == names[i], i
        LIBC.seekdir(directory, places[1000])
        assert names_in(directory) == names[1000:]
        assert next_name(directory) is None
        write(mount.path + "/late")
        LIBC.rewinddir(directory)
        assert "late" in names_in(directory)
        LIBC.closedir(directory)


def every_kind_of_entry_has_its_type():
    with Mount() as mount:
        os.mkdir(mount.source + "/d")
        write(mount.source + "/f")
        os.mkfifo(mount.source + "/p")
        os.symlink("f", mount.source + "/s")
        os.mknod(mount.source + "/c", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        for _ in range(2):
            kinds = {entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
                     for entry in os.scandir(mount.path)}
            assert kinds == {"d": stat.S_IFDIR, "f": stat.S_IFREG, "p": stat.S_IFIFO, "s": stat.S_IFLNK,
                             "c": stat.S_IFCHR}, kinds
            assert [entry.is_dir(follow_symlinks=False) for entry in os.scandir(mount.path)].count(True) == 1


def eintr_and_eagain_below_reach_nobody():
    for error in "EINTR", "EAGAIN":
        calls = "mkdirat,unlinkat,renameat,fchownat,getdents64"
        with Mount(wrap=strace("/dev/null", calls, f"{calls}:error={error}:when=1..3")) as mount:
            os.mkdir(mount.path + "/a")
            os.rename(mount.path + "/a", mount.path + "/b")
            os.chown(mount.path + "/b", 1, 2)
            assert os.listdir(mount.path) == ["b"]
            os.rmdir(mount.path + "/b")


# ---- options ------------------------------------------------------------------------------------------


def source_of_any_name():
    with Mount(source="a, b\\c,d=e") as mount:
        write(mount.path + "/file", "text")
        assert read(mount.source + "/file") == "text"
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            line = next(line for line in file if line.split()[4] == mount.path)
        said = line.split(" - ")[1].split()[1]
        assert said.encode().decode("unicode_escape") == mount.source, said


def options_of_mounts_work():
    with Mount("-oro", prepare=lambda mount: write(mount.source + "/file", "text")) as mount:
        assert read(mount.path + "/file") == "text"
        fails(errno.EROFS, os.mkdir, mount.path + "/new")
    for option in ("-omax_read=4096", "-omax_read=131072", "-s", "-oclone_fd", "-omax_threads=3", "-oallow_root",
                   "-oallow_other", "-ofsname=something", "-otimeout=0", "-otimeout=3600", "-oauto_unmount"):
        with Mount(option) as mount:
            assert mount.process.poll() is None, mount.text()
            with open(mount.path + "/file", "wb") as file:
                file.write(b"x" * 300000)
            with open(mount.path + "/file", "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert file.read() == b"x" * 300000
            assert os.stat(mount.path + "/file").st_size == 300000
            mount.stop()


def auto_unmount_outlives_the_program():
    with Mount("-oauto_unmount") as mount:
        mount.process.kill()
        mount.process.wait()
        until(lambda: not mounted(mount.path))


def statfs_is_that_of_the_source():
    with Mount() as mount:
        a, b = os.statvfs(mount.path), os.statvfs(mount.source)
        assert (a.f_bsize, a.f_blocks, a.f_files, a.f_namemax) == (b.f_bsize, b.f_blocks, b.f_files, b.f_namemax)


TESTS = (
    walks_and_open_files_share_few_descriptors, more_open_files_than_descriptors_is_emfile,
    what_has_no_name_is_there_for_who_has_it, what_was_removed_below_is_there_while_it_is_open,
    number_used_anew_is_no_old_inode, hard_links_share_a_number,
    many_at_once_meet_no_strange_error, large_files_removed_at_once_delay_nobody_for_descriptors,
    another_file_system_below_is_shown_and_can_be_unmounted,
    what_is_no_file_is_found_where_a_mount_was_let_go, bind_mounts_below_are_mounts,
    mounted_over_its_own_source, mounted_below_its_own_source, source_that_is_unplugged_is_an_error,
    without_handles_each_inode_has_a_descriptor, who_is_killed_while_all_workers_wait_leaves_no_descriptor, user_without_privilege_mounts,
    new_things_belong_to_who_makes_them, a_sticky_directory_protects_what_has_the_name_now,
    a_worker_is_root_again_after_it_acted_as_its_caller, access_control_lists_of_the_source_hold,
    set_id_bits_go_when_others_change_a_file, set_id_bits_go_where_a_worker_cannot_act_as_its_caller,
    set_id_bits_lost_below_are_not_obeyed, a_mode_set_while_set_id_bits_go_stays, extended_attributes_of_any_size,
    attributes_of_the_administrator_are_shown_to_nobody_else, attributes_that_come_are_seen_at_once,
    an_attribute_that_comes_while_it_is_looked_for_is_seen,
    writes_are_asked_for_capabilities_once, without_attributes_the_kernel_asks_once, times_are_set_on_links_too,
    rename_has_flags, names_are_as_long_and_paths_as_deep_as_in_the_source,
    directory_read_while_half_of_it_goes, directory_is_sought_by_place, every_kind_of_entry_has_its_type,
    eintr_and_eagain_below_reach_nobody, source_of_any_name, options_of_mounts_work,
    auto_unmount_outlives_the_program, statfs_is_that_of_the_source)


def run_in(place, test):
    Mount.place = place
    test()


def main():
    begin()
    return tap.run([(f"{test.__name__} {name}", run_in, place, test)
                    for name, place in find_places(lambda: [("here", tempfile.gettempdir())]) for test in TESTS],
                   sys.argv[2:])


sys.exit(main())
