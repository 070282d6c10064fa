"""What the tests of onefd-fuse in Python share: mounts that go again, and TAP."""
import os
import signal
import subprocess
import sys
import time
import traceback

PATIENCE = 60  # seconds: bounds a failure, measures nothing


class Skip(Exception):
    pass


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.002)


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


def find_places(default):
    """(name, directory) of each file system of ONEFD_TEST_DIRS (mounts.sh), or those of @default()."""
    words = os.environ.get("ONEFD_TEST_DIRS", "").split(":")
    return list(zip(words[::2], words[1::2])) or default()


def begin():
    """For who may mount; others are told so."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("1..0 # SKIP mounting needs root and /dev/fuse")
        sys.exit(0)
    # Its mounts go, too, when it takes too long.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def run_cases(cases, names):
    """Each is (title, call, arguments); those of @names alone, if there are any. Answers the exit status."""
    cases = [case for case in cases if not names or case[0].split()[0] in names]
    failed = 0
    print(f"1..{len(cases)}")
    for number, (title, call, *arguments) in enumerate(cases, 1):
        try:
            call(*arguments)
            print(f"ok {number} - {title}", flush=True)
        except Skip as reason:
            print(f"ok {number} - {title} # SKIP {reason}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"not ok {number} - {title}")
            print("# " + traceback.format_exc().replace("\n", "\n# "), flush=True)
    return failed != 0
