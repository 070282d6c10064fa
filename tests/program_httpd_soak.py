#!/usr/bin/env python3
"""Clients of all kinds for a long time, in TAP.

Usage: program_httpd_soak.py ONEFD_HTTPD [SECONDS [SEED]]

Sixteen threads that read, verify, stall, die and come again. No byte may be wrong; at the end the
descriptors are as many as at the start, the counters are 0, and what is resident after the second
half is what was after the first, but for a margin.
"""
import os
import random
import shutil
import sys
import tempfile
import threading
import time

from http_server import Server
from tap import run, until

PROGRAM = os.path.realpath(sys.argv[1])
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 600
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else random.SystemRandom().randrange(1 << 32)
TOP = tempfile.mkdtemp(prefix="onefd-httpd.")
THREADS = 16
MARGIN = 8 << 20
FILES = {f"/{size}": os.urandom(size) for size in (0, 1, 1000, 4096, 65536, 300001, 4 << 20)}
TIMEOUT = 3


def read_whole(client, rng):
    path = rng.choice(list(FILES))
    answer = client.get(path)
    assert (answer.status, answer.body) == (200, FILES[path]), (path, answer)


def read_range(client, rng):
    path = rng.choice(list(FILES)[1:])
    size = len(FILES[path])
    first = rng.randrange(size)
    last = rng.randrange(first, size)
    answer = client.get(path, f"Range: bytes={first}-{last}")
    assert (answer.status, answer.body) == (206, FILES[path][first:last + 1]), (path, answer)


def read_what_is_not_there(client, rng):
    assert client.get(f"/none{rng.randrange(100)}").status == 404


def ask_whether_it_changed(client, rng):
    path = rng.choice(list(FILES))
    tag = client.get(path, method="HEAD")["ETag"]
    assert client.get(path, f"If-None-Match: {tag}").status == 304


def pipeline(client, rng):
    paths = rng.choices(list(FILES)[:5], k=20)
    for path in paths:
        client.ask(path)
    for path in paths:
        answer = client.answer()
        assert (answer.status, answer.body) == (200, FILES[path]), (path, answer)


def read_slowly(client, rng):
    path = list(FILES)[-1]
    client.ask(path)
    head = dict(client.head()[1])
    body = b""
    while len(body) < int(head["content-length"]):
        body += client.file.read(1 << 19)
        time.sleep(rng.random() * 0.1)
    assert body == FILES[path], path


KINDS = (read_whole, read_whole, read_range, read_range, read_what_is_not_there, ask_whether_it_changed,
         pipeline, read_slowly)


def die_midway(client, rng):
    client.ask(rng.choice(list(FILES)))
    client.file.read(rng.randrange(1, 100))
    client.reset()


def die_at_once(client, rng):
    client.send(b"GET /4096 HTTP/1.1\r\nHost: x\r\n\r\n"[:rng.randrange(36)])
    client.reset()


def stall(client, _):
    """Until it is hung up on."""
    client.ask(list(FILES)[-1])
    client.ask(list(FILES)[-1])
    time.sleep(TIMEOUT + 2)
    client.close()


ENDS = (die_midway, die_at_once, stall) + (lambda client, _: client.close(),) * 4


def use(server, number, end, failures):
    rng = random.Random(f"{SEED}-{number}")
    try:
        while time.monotonic() < end and not failures:
            client = server.connect(receive_buffer=rng.choice((None, 4096)),
                                    source=f"127.0.0.{2 + rng.randrange(200)}")
            for _ in range(rng.randrange(20)):
                if time.monotonic() > end:
                    break
                rng.choice(KINDS)(client, rng)
            rng.choice(ENDS)(client, rng)
    except Exception as failure:  # pylint: disable=broad-except
        failures.append(failure)


def use_for(server, seconds, first):
    failures, end = [], time.monotonic() + seconds
    threads = [threading.Thread(target=use, args=(server, first + i, end, failures)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    server.wait_idle()
    return server.memory()


def clients_come_and_go_and_leave_nothing():
    for path, content in FILES.items():
        with open(TOP + path, "wb") as file:
            file.write(content)
    with Server(PROGRAM, TOP, f"--timeout={TIMEOUT}") as server:
        server.get("/1")
        server.wait_idle()
        descriptors = server.descriptors()
        half = use_for(server, SECONDS / 2, 0)
        until(lambda: server.descriptors() == descriptors)
        whole = use_for(server, SECONDS / 2, THREADS)
        until(lambda: server.descriptors() == descriptors)
        print(f"# resident: {half >> 10} KiB after a half, {whole >> 10} KiB after all")
        assert whole < half + MARGIN, (half, whole)


print(f"# seed {SEED}, {SECONDS} seconds", flush=True)
try:
    status = run([clients_come_and_go_and_leave_nothing])
finally:
    shutil.rmtree(TOP)
sys.exit(status)
