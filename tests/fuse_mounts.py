"""What the tests of onefd-fuse in Python share: mounts that go again."""
import os
import signal
import subprocess
import sys


def mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return any(line.split()[4] == path for line in file)


def targets(process):
    """What the daemon's descriptors stand for; the loop's are no paths."""
    for fd in os.listdir(f"/proc/{process.pid}/fd"):
        try:
            yield os.readlink(f"/proc/{process.pid}/fd/{fd}")
        except FileNotFoundError:
            pass


def abort(mount):
    """By its connection's control file."""
    number = os.minor(os.stat(mount.path).st_dev)
    control = mount.top + "/control"
    os.mkdir(control)
    subprocess.run(["mount", "-t", "fusectl", "none", control], check=True)
    try:
        with open(f"{control}/{number}/abort", "w", encoding="ascii") as file:
            file.write("1")
    finally:
        subprocess.run(["umount", control], check=True)


def end_daemon(process, *paths):
    """However a test went: it and the mounts at @paths are gone then."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for path in paths:
        while mounted(path):
            subprocess.run(["umount", "-l", path], check=True)


def begin():
    """For who may mount; others are told so."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("1..0 # SKIP mounting needs root and /dev/fuse")
        sys.exit(0)
    # Its mounts go, too, when it takes too long.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
