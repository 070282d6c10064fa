#!/usr/bin/env python3
"""Hostile clients beside good ones, in TAP.

Usage: program_httpd_hostile.py ONEFD_HTTPD [SESSIONS [SEED]]

Each session is a connection of its own, made of its number and the seed, which is printed: the
same are the same sessions. Up to 64 run at a time. The good clients lose nothing meanwhile; at the
end the server has as many descriptors as at the start, its counters are 0, and so is its status.
"""
import os
import random
import selectors
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time

from http_server import Server, request
from tap import PATIENCE, run, until

PROGRAM = os.path.realpath(sys.argv[1])
SESSIONS = int(sys.argv[2]) if len(sys.argv) > 2 else 400
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else random.SystemRandom().randrange(1 << 32)
TOP = tempfile.mkdtemp(prefix="onefd-httpd.")
FILES = {f"/f{size}": os.urandom(size) for size in (0, 1, 4096, 65537, 1 << 20)}
LARGE = 32 << 20
AT_ONCE = 64
LINGER = 0.05  # seconds for which a session whose say is said listens


# ---- what a session says: a list of bytes, of seconds to wait, and of an end ------------


def garbage(rng):
    return [rng.randbytes(rng.choice((1, 10, 1000, 50000)))]


def lines_of_garbage(rng):
    return [b"".join(rng.randbytes(rng.randrange(40)).replace(b"\n", b"") + b"\r\n"
                     for _ in range(rng.randrange(1, 60))) + b"\r\n"]


def good(rng, path=None):
    return request(path or rng.choice(list(FILES)))


def half(rng):
    text = good(rng)
    return [text[:rng.randrange(len(text))]]


def huge_header(rng):
    size = rng.choice((5000, 40000, 500000))
    return rng.choice((
        [request("/" + "x" * size)], [request("/f1", "X: " + "y" * size)],
        [request("/f1", *(f"X{i}: y" for i in range(size // 10)))],
        [b"GET /f1 HTTP/1.1\r\n" + b" folded" * (size // 7)], [b"x" * size], [b"\r\n" * size]))


def chunks(rng):
    head = request("/f1", "Transfer-Encoding: chunked", method=rng.choice(("GET", "POST", "PUT")))
    return [head, *rng.sample((b"5\r\nhello\r\n", b"zz\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"5\r\nhel",
                               b"0\r\n\r\n", b"5;a=b\r\nhello\r\n", b"00000000000000000000005\r\n",
                               b"\r\n\r\n", b"5\r\nhello world\r\n", b"0\r\nX: y\r\n" * 500), 4)]


def body(rng):
    size = rng.choice((0, 1, 1000, 200000))
    return [request("/f1", f"Content-Length: {size}", rng.choice(("X: y", "Expect: 100-continue")),
                    method=rng.choice(("POST", "PUT", "GET", "HEAD", "DELETE"))),
            rng.randbytes(size) + rng.choice((b"", good(rng)))]


def length_that_lies(rng):
    said = rng.choice(("10", "99999999999999999999", "-5", "0x10", "5, 6", "18446744073709551615",
                       "9223372036854775807", "", "ten", "5\r\nContent-Length: 6"))
    return [request("/f1", f"Content-Length: {said}", method=rng.choice(("POST", "GET"))),
            rng.randbytes(rng.randrange(100)) + good(rng)]


def ranges(rng):
    spec = rng.choice((
        ",".join(f"{i}-{i}" for i in range(1000)), "0-" * 2000, "-" * 3000, "0-18446744073709551615",
        "9223372036854775807-", "-9223372036854775808", "9" * 3000 + "-", "0-0," * 900,
        f"{rng.randrange(1 << 64)}-{rng.randrange(1 << 64)}", "-18446744073709551616",
        f"{rng.randrange(1 << 20)}-{rng.randrange(1 << 20)}"))
    return [request("/f1048576", f"Range: bytes={spec}", "If-Range: " + rng.choice(('"', '"x"', "W/")))
            * rng.choice((1, 20))]


def conditions(rng):
    value = rng.choice(('"' * 3000, "*, *", '"a"' + ',"b"' * 900, "W/" * 900, "Sun, 99 Foo", '"\\', ",,,,"))
    name = rng.choice(("If-None-Match", "If-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"))
    return [request(rng.choice(list(FILES)), f"{name}: {value}", f"{name}: {value}", "Range: bytes=0-1")]


def good_then_garbage(rng):
    return [good(rng) * rng.randrange(1, 30) + rng.randbytes(rng.randrange(1, 3000)) + good(rng)]


def names(rng):
    parts = ("..", ".", "", "%2e%2e", "%2f", "f1", "%00", "\\", "%", "%ff", "dir", "fifo", "link", "?", "x" * 300)
    return [b"".join(request("/" + "/".join(rng.choices(parts, k=rng.randrange(1, 12))))
                     for _ in range(rng.randrange(1, 20)))]


def slowly(rng):
    text = good(rng)
    cut = sorted(rng.sample(range(1, len(text)), 6))
    return [word for a, b in zip([0, *cut], [*cut, len(text)]) for word in (text[a:b], 0.01)]


def mutated(rng):
    text = bytearray(good(rng) + good(rng))
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(text))
        change = rng.randrange(3)
        if change == 0:
            text[at] = rng.randrange(256)
        elif change == 1:
            del text[at:at + rng.randrange(1, 10)]
        else:
            text[at:at] = rng.randbytes(rng.randrange(1, 10))
        text = text or bytearray(b"x")
    return [bytes(text)]


def download_that_is_left(rng):
    return [good(rng, "/large") * rng.randrange(1, 4), 0.02]


def other_protocols(rng):
    return [rng.choice((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(508),
                        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(100), b"SSH-2.0-x\r\n",
                        b"GET /f1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
                        request("/f1", "Upgrade: websocket", "Connection: Upgrade", "Upgrade: h2c"),
                        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"GET http:// HTTP/1.1\r\nHost:\r\n\r\n"))]


def nothing(_):
    return []


KINDS = (garbage, lines_of_garbage, half, huge_header, chunks, body, length_that_lies, ranges, conditions,
         good_then_garbage, names, slowly, mutated, download_that_is_left, other_protocols, nothing)


class Session:
    """One socket of the selector's. It goes by a reset, a close, or half of one first."""

    def __init__(self, number, port):
        rng = random.Random(f"{SEED}-{number}")
        self.script = KINDS[number % len(KINDS)](rng)
        self.end = rng.choice(("reset", "close", "close", "shutdown"))
        self.reads = rng.random() < 0.7
        self.linger = rng.choice((0, LINGER))
        self.until = None
        self.socket = socket.socket()
        self.socket.setblocking(False)
        # Its ports stay taken for a while: other sessions have another's.
        self.socket.bind((f"127.0.0.{2 + number % 200}", 0))
        self.socket.connect_ex(("127.0.0.1", port))

    def events(self):
        if self.until is not None:  # it waits
            return selectors.EVENT_READ if self.reads else 0
        return selectors.EVENT_WRITE | (selectors.EVENT_READ if self.reads else 0)

    def go_on(self, events, now):
        """Whether there is more to come."""
        try:
            if events & selectors.EVENT_READ and not self.socket.recv(1 << 18):
                return False
            if self.until is not None and now < self.until:
                return True
            if self.until is None and not events & selectors.EVENT_WRITE:
                return True
            return self.say(now)
        except BlockingIOError:
            return True
        except OSError:
            return False

    def say(self, now):
        self.until = None
        if not self.script:
            if self.end == "shutdown":
                self.socket.shutdown(socket.SHUT_WR)
            if not self.linger:
                return False
            self.until, self.linger = now + self.linger, 0
            return True
        word = self.script[0]
        if isinstance(word, float):
            self.until = now + word
            self.script.pop(0)
        else:
            rest = word[self.socket.send(word):]
            self.script[:1] = [rest] if rest else []
        return True

    def close(self):
        if self.end == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def run_sessions(port):
    selector = selectors.DefaultSelector()
    sessions, number = set(), 0
    while sessions or number < SESSIONS:
        while len(sessions) < AT_ONCE and number < SESSIONS:
            sessions.add(session := Session(number, port))
            session.watched = session.events()
            selector.register(session.socket, session.watched, session)
            number += 1
        ready = {key.data: events for key, events in selector.select(0.005)}
        now = time.monotonic()
        for session in list(sessions):
            if session not in ready and (session.until is None or now < session.until):
                continue
            if session.go_on(ready.get(session, 0), now):
                watch(selector, session)
            else:
                if session.watched:
                    selector.unregister(session.socket)
                session.close()
                sessions.discard(session)


def watch(selector, session):
    wanted = session.events()
    if wanted == session.watched:
        return
    if not session.watched:
        selector.register(session.socket, wanted, session)
    elif not wanted:
        selector.unregister(session.socket)
    else:
        selector.modify(session.socket, wanted, session)
    session.watched = wanted


# ---- those that are served meanwhile -----------------------------------------------------


class Good(threading.Thread):
    """Asks for all files in turn, on one connection, until it is told to end."""

    def __init__(self, server):
        super().__init__()
        self.server, self.over, self.answers, self.failure = server, threading.Event(), 0, None
        self.start()

    def run(self):
        try:
            with self.server.connect() as client:
                while not self.over.is_set():
                    for path, content in FILES.items():
                        answer = client.get(path)
                        assert (answer.status, answer.body) == (200, content), (path, answer)
                        self.answers += 1
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def end(self):
        self.over.set()
        self.join()
        if self.failure:
            raise self.failure
        assert self.answers, "it was never answered"


def hostile_sessions_cost_nobody_anything():
    root = TOP + "/root"
    os.makedirs(root + "/dir")
    os.mkfifo(root + "/fifo")
    os.symlink("/etc", root + "/link")
    for path, content in {**FILES, "/large": bytes(LARGE)}.items():
        with open(root + path, "wb") as file:
            file.write(content)
    with Server(PROGRAM, root, "--timeout=2", f"--log={TOP}/log") as server:
        for path, content in FILES.items():
            assert server.get(path).body == content
        server.wait_idle()
        before = server.descriptors()
        clients = [Good(server) for _ in range(2)]
        try:
            run_sessions(server.port)
        finally:
            for client in clients:
                client.over.set()
        for client in clients:
            client.end()
        server.wait_idle()
        until(lambda: server.descriptors() == before)


print(f"# seed {SEED}, {SESSIONS} sessions, {PATIENCE} s of patience", flush=True)
try:
    status = run([hostile_sessions_cost_nobody_anything])
finally:
    shutil.rmtree(TOP)
sys.exit(status)
