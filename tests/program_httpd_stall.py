#!/usr/bin/env python3
"""Files in memory are served while the disk is slow, or stands still: run by slow_device.sh, in TAP.

Usage: program_httpd_stall.py ONEFD_HTTPD HTTP_LOAD [prepare DIR]

A hot file of 4 KiB is asked for every 5 ms, its latency counted from when it was due. Beside it
are downloads of what is cold: the directories, the inodes and the contents. Half may take
1 ms at most, however busy the machine, and nothing as long as the disk does; with STALL_STRICT=1
the bounds are what a quiet machine shows.
ONEFD_STALL_SECONDS is for how long the device stands still (2).
"""
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from http_server import Server
from tap import PATIENCE, run

PROGRAM, LOAD = (os.path.realpath(path) for path in sys.argv[1:3])
HOT = 16
COLD = [f"/c{i}/d/file" for i in range(48)]
COLD_SIZE = 5 << 20
SECONDS = 3
STALL = float(os.environ.get("ONEFD_STALL_SECONDS", "2"))
MEDIAN_US = 1000
P99_US, MAX_US = (1000, 25000) if os.environ.get("STALL_STRICT") else (50000, 190000)


def prepare(top):
    os.mkdir(top + "/hot")
    for path, size in [*((f"/hot/{i}", 4096) for i in range(HOT)), *((path, COLD_SIZE) for path in COLD)]:
        os.makedirs(os.path.dirname(top + path), exist_ok=True)
        with open(top + path, "wb") as file:
            file.write(os.urandom(size))
    os.sync()


def hold(path):
    """Brings the file into memory, where it stays while others drop what is not mapped."""
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert sum(view[::512]), path
    return view


def begin(top):
    """Nothing is in memory but the hot ones: as long as they are held."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
    with ThreadPoolExecutor(HOT) as pool:
        return list(pool.map(hold, (f"{top}/hot/{i}" for i in range(HOT))))


def list_of(paths):
    file = tempfile.NamedTemporaryFile("w", suffix=".list")
    file.write("".join(path + "\n" for path in paths))
    file.flush()
    return file


def hot_beside(server, cold, seconds):
    """What http_load says, and the part of the time for which the server was on a processor."""
    with list_of(f"/hot/{i}" for i in range(HOT)) as hot_list, list_of(cold) as cold_list:
        before = server.cpu()
        beside = [f"--cold={cold_list.name}", f"--cold-connections={len(cold)}", "--cold-once"] if cold else []
        end = subprocess.run(
            [LOAD, f"--hot={hot_list.name}", "--rate=200", "--hot-connections=4", "--hot-size=4096",
             *beside, f"--seconds={seconds}", str(server.port)], check=False, stdout=subprocess.PIPE, timeout=PATIENCE + seconds)
        said = json.loads(end.stdout)
        return said, (server.cpu() - before) / said["seconds"]


def show(said, title):
    print(f"# {title}: {said['hot']} times, median {said['p50_us'] / 1e3:.2f}, p99 {said['p99_us'] / 1e3:.2f}, "
          f"most {said['max_us'] / 1e3:.2f} ms; {said['cold_bytes']} cold bytes")


def look(said, title):
    show(said, title)
    assert said["errors"] == said["cold_errors"] == 0, said
    assert said["p50_us"] <= MEDIAN_US and said["p99_us"] <= P99_US and said["max_us"] <= MAX_US, said


def hot_file_does_not_wait_for_cold_ones(server, cold):
    said, _ = hot_beside(server, cold, SECONDS)
    look(said, f"beside {len(cold)}")
    assert said["cold_bytes"] and said["cold_done"] < len(cold), "the disk was not at work all the time"


def hot_file_does_not_wait_for_a_disk_that_stands_still(server, cold):
    device = int(os.environ["ONEFD_SLOW_PID"])
    os.kill(device, signal.SIGSTOP)
    try:
        said, busy = hot_beside(server, cold, STALL)
    finally:
        os.kill(device, signal.SIGCONT)
    look(said, f"for {STALL} s of standstill, {busy * 100:.0f} % of a processor")
    assert busy < 0.1, "it does not wait, it spins"


if len(sys.argv) > 3:
    assert sys.argv[3] == "prepare"
    prepare(sys.argv[4])
    sys.exit(0)
TOP = os.environ["ONEFD_SLOW_DIR"]
held = begin(TOP)
with Server(PROGRAM, TOP) as the_server:
    # The first open of all may write to the file system's journal: it is a worker's.
    the_server.get("/hot/0")
    quiet, _ = hot_beside(the_server, [], SECONDS)
    show(quiet, "with nothing beside")
    # Others each time: what one of them has read is cold no more.
    status = run([
        ("hot_file_does_not_wait_for_8_cold_ones",
         hot_file_does_not_wait_for_cold_ones, the_server, COLD[:8]),
        ("hot_file_does_not_wait_for_32_cold_ones",
         hot_file_does_not_wait_for_cold_ones, the_server, COLD[8:40]),
        ("hot_file_does_not_wait_for_a_disk_that_stands_still",
         hot_file_does_not_wait_for_a_disk_that_stands_still, the_server, COLD[40:])])
sys.exit(status)
