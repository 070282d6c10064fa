#!/usr/bin/env python3
"""Hostile clients of onefd-nbd beside a good one, in TAP.

Usage: program_nbd_hostile.py ONEFD_NBD [COUNT [SEED]]

COUNT sessions (600), 64 at a time, over UNIX sockets and over TCP by halves: garbage,
wrong lengths, floods, what a good client sends with some of it changed; in pieces, and
ended in every way. The good client meanwhile writes and reads a file of its own, and
may lose no request and no byte. A seed that failed is given again as SEED.
"""
import heapq
import os
import random
import selectors
import signal
import socket
import struct
import sys
import time

import nbd
from nbd import KIB, MIB, Server, make

PROGRAM = sys.argv[1]
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 600
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32)
AT_ONCE = 64
SIZE = 4 * MIB
PATIENT_S, LATE_S = .1, 2  # p99 and most of the good client's, beside Python on the same CPUs

EDGES = (0, 1, 2, 27, 28, 511, 512, 4095, 4096, 4097, 65535, 65536, SIZE - 1, SIZE, SIZE + 1,
         32 * MIB - 1, 32 * MIB, 32 * MIB + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
FAR = (*EDGES, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1)
NAMES = (b"", b"victim", b"none", b"victim\0", b"../victim", b"x" * 4096, b"x" * 4097, b"\xff" * 9)
QUERIES = (b"base:allocation", b"base:", b"", b":", b"qemu:dirty-bitmap:x", b"base:allocation" * 99)
OPTIONS = (*range(13), 77, 1 << 31, 0xFFFFFFFF)


# ---- what they send --------------------------------------------------------------


def good_options(dice):
    """As others' clients do."""
    name = dice.choice((b"", b"victim"))
    options = []
    if dice.random() < .7:
        options.append(nbd.pack_option(nbd.STRUCTURED_REPLY))
        if dice.random() < .7:
            options.append(nbd.pack_option(
                dice.choice((nbd.LIST_META_CONTEXT, nbd.SET_META_CONTEXT)),
                nbd.pack_queries(name, [b"base:allocation"])))
    if dice.random() < .3:
        options.append(nbd.pack_option(nbd.LIST))
    if dice.random() < .3:
        options.append(nbd.pack_option(nbd.INFO, nbd.pack_name(name, (nbd.INFO_BLOCK_SIZE,))))
    if dice.random() < .2:
        return options + [nbd.pack_option(nbd.EXPORT_NAME, name)]
    return options + [nbd.pack_option(nbd.GO, nbd.pack_name(name, (nbd.INFO_NAME,)))]


def bad_option(dice):
    what = dice.random()
    option = dice.choice(OPTIONS)
    if what < .3:
        return nbd.pack_option(option, dice.randbytes(dice.choice((0, 1, 4, 6, 10, 300, 70000))))
    if what < .5:
        return nbd.pack_option(option, dice.randbytes(20), dice.choice(EDGES))
    if what < .7:
        return nbd.pack_option(dice.choice((nbd.INFO, nbd.GO)),
                               nbd.pack_name(dice.choice(NAMES), [77] * dice.choice((0, 1, 9999))))
    if what < .9:
        return nbd.pack_option(
            dice.choice((nbd.LIST_META_CONTEXT, nbd.SET_META_CONTEXT)),
            nbd.pack_queries(dice.choice(NAMES),
                             [dice.choice(QUERIES)] * dice.choice((0, 1, 7, 1000))))
    return nbd.pack_option(nbd.LIST) * dice.choice((2, 500, 4000))


def good_request(dice):
    length = dice.choice((1, 512, 4096, 4097, 65536))
    at = dice.randrange(SIZE - length)
    command = dice.choice((nbd.READ, nbd.READ, nbd.WRITE, nbd.FLUSH, nbd.TRIM, nbd.CACHE,
                           nbd.WRITE_ZEROES, nbd.BLOCK_STATUS))
    if command == nbd.FLUSH:
        at = length = 0
    packet = nbd.pack_request(command, at, length, handle=dice.randrange(1 << 64))
    return packet + (bytes(length) if command == nbd.WRITE else b"")


def bad_request(dice):
    what = dice.random()
    if what < .1:
        return dice.randbytes(dice.choice((1, 28, 500, 5000)))
    command = dice.choice((*range(9), 0xFFFF))
    length = dice.choice(EDGES)
    packet = nbd.pack_request(
        command, dice.choice(FAR), length, dice.choice((0, 1, 2, 4, 8, 16, 31, 32, 0xFFFF)),
        dice.randrange(1 << 64), nbd.REQUEST_MAGIC if what < .95 else dice.randrange(1 << 32))
    if command == nbd.WRITE:
        packet += bytes(min(length, dice.choice((0, length // 2, 5000, 70000, MIB))))
    elif what > .9:
        # What a server would say.
        packet += struct.pack(">IIQ", nbd.SIMPLE_MAGIC, 0, 1)
    return packet


def mutated(dice, data):
    data = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(data) or 1)
        what = dice.randrange(5)
        if what == 0:
            data[at:at + 1] = dice.randbytes(1)
        elif what == 1:
            data[at:at + 4] = struct.pack(">I", dice.choice(EDGES))
        elif what == 2:
            del data[at:at + dice.choice((1, 4, 100))]
        elif what == 3:
            data[at:at] = dice.randbytes(dice.choice((1, 4, 100)))
        else:
            data[at:at] = data[at:at + dice.choice((4, 28, 1000))]
    return bytes(data)


def bytes_of_session(dice):
    hello = struct.pack(">I", 3 if dice.random() < .9 else dice.choice((0, 1, 2, 4, 1 << 31)))
    what = dice.random()
    if what < .03:
        return dice.randbytes(dice.choice((1, 4, 20, 3000, 100000)))
    if what < .05:
        return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    options = good_options(dice)
    if what < .4:
        for _ in range(dice.choice((1, 1, 3, 10))):
            options.insert(dice.randrange(len(options)), bad_option(dice))
    requests = [good_request(dice) for _ in range(dice.choice((0, 1, 5, 40)))]
    if what > .7:
        for _ in range(dice.choice((1, 1, 3))):
            requests.insert(dice.randrange(len(requests) + 1), bad_request(dice))
    if dice.random() < .3:
        requests.append(nbd.pack_request(nbd.DISC))
    if what > .97:
        requests.append(nbd.pack_request(nbd.READ, 0, SIZE) * dice.choice((5, 100)))
    session = hello + b"".join(options + requests)
    return mutated(dice, session) if .35 < what < .75 else session


# ---- how they send it ------------------------------------------------------------


class Session:
    """One: it is watched by the loop of Sessions, and ends itself."""

    def __init__(self, dice, address):
        self.data = bytes_of_session(dice)
        if dice.random() < .3:
            self.data = self.data[:dice.randrange(len(self.data) + 1)]
        self.piece = dice.choice((1 if len(self.data) < 500 else 7, 100, 4096, MIB, MIB, MIB))
        self.piece = max(self.piece, len(self.data) // 300)
        self.reads = dice.random() < .85
        self.reset = dice.random() < .3
        self.shuts = dice.random() < .1
        # Most go at once, some see what comes, few wait to be hung up on.
        stays = dice.random()
        self.stays_s = 0 if stays < .6 else .05 if stays < .98 else 2.5
        self.socket = socket.socket(
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.setblocking(False)
        try:
            self.socket.connect(address)
        except BlockingIOError:
            if isinstance(address, str):  # its queue is full
                self.socket.close()
                raise

    def events(self):
        return (selectors.EVENT_WRITE if self.data else 0) | \
            (selectors.EVENT_READ if self.reads or not self.data else 0)

    def step(self, events):
        """Whether there is more of it."""
        try:
            if events & selectors.EVENT_READ:
                if self.reads:
                    if not self.socket.recv(MIB):
                        return False
                else:
                    # Watched to learn of the end alone.
                    return len(self.socket.recv(1, socket.MSG_PEEK)) > 0
            if events & selectors.EVENT_WRITE and self.data:
                sent = self.socket.send(self.data[:self.piece])
                self.data = self.data[sent:]
                if not self.data and self.shuts:
                    self.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def end(self):
        if self.reset and self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Sessions:
    def __init__(self, dice, address, count):
        self.dice, self.address, self.left = dice, address, count
        self.selector = selectors.DefaultSelector()
        self.deadlines = []  # (when, number, session)
        self.open = set()
        self.number = 0

    def run(self):
        while self.left or self.open:
            while self.left and len(self.open) < AT_ONCE and self.begin():
                pass
            timeout = max(0, self.deadlines[0][0] - time.monotonic()) if self.deadlines else 1
            for key, events in self.selector.select(min(timeout, .01 if self.left else 1)):
                self.step(key.data, events)
            while self.deadlines and self.deadlines[0][0] <= time.monotonic():
                self.end(heapq.heappop(self.deadlines)[2])

    def begin(self):
        try:
            session = Session(self.dice, self.address)
        except BlockingIOError:
            return False
        self.left -= 1
        self.open.add(session)
        self.selector.register(session.socket, selectors.EVENT_WRITE, session)
        self.end_after(session, 2.5)  # whose answers are not taken sends no more
        return True

    def end_after(self, session, seconds):
        self.number += 1
        heapq.heappush(self.deadlines, (time.monotonic() + seconds, self.number, session))

    def step(self, session, events):
        if session not in self.open:
            return
        had = bool(session.data)
        if not session.step(events):
            self.end(session)
            return
        if had and not session.data:
            if not session.stays_s:
                self.end(session)
                return
            self.end_after(session, session.stays_s)
        if not session.reads and not session.data:
            # Level-triggered, and it takes nothing: only its deadline is looked at.
            self.selector.unregister(session.socket)
            return
        self.selector.modify(session.socket, session.events(), session)

    def end(self, session):
        if session not in self.open:
            return
        self.open.discard(session)
        if session.socket in self.selector.get_map():
            self.selector.unregister(session.socket)
        session.end()


# ---- the good one ----------------------------------------------------------------


class Good:
    """A process of its own, until it is told to tell: requests, p99 and most, in seconds."""

    def __init__(self, server, content):
        self.told, telling = os.pipe()
        self.client = server.client(b"good")
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.told)
                signal.signal(signal.SIGUSR2, self.over)
                os.write(telling, b"ready\n")
                times = self.work(bytearray(content))
                os.write(telling, f"{len(times)} {times[len(times) * 99 // 100]} {times[-1]}\n"
                         .encode())
                status = 0
            except BaseException as error:  # pylint: disable=broad-except
                os.write(telling, f"failed: {error!r}\n".encode())
            finally:
                os._exit(status)
        os.close(telling)
        self.told = os.fdopen(self.told)
        assert self.told.readline() == "ready\n"

    ending = False

    def over(self, *_):
        self.ending = True

    def work(self, content):
        dice, times = random.Random(SEED), []
        while not self.ending:
            length = dice.choice((512, 4096, 70000))
            at = dice.randrange(len(content) - length)
            start = time.monotonic()
            if dice.random() < .3:
                content[at:at + length] = data = dice.randbytes(length)
                self.client.write(at, data)
            else:
                assert self.client.read(at, length) == content[at:at + length], "wrong bytes"
            times.append(time.monotonic() - start)
        assert self.client.read(0, len(content)) == content, "wrong bytes at the end"
        return sorted(times)

    def tell(self):
        os.kill(self.pid, signal.SIGUSR2)
        line = self.told.readline()
        assert os.waitpid(self.pid, 0)[1] == 0, line
        count, patient, late = line.split()
        return int(count), float(patient), float(late)


def hostile_sessions_cost_nobody_anything(tcp, seed):
    victim, _ = make("victim", SIZE)
    path, content = make("good", SIZE)
    with Server([PROGRAM], "--handshake-timeout=2", "--stall-timeout=2", victim, path,
                tcp=tcp) as server:
        good = Good(server, content)
        before = server.descriptors()
        start = time.monotonic()
        Sessions(random.Random(seed), server.address, COUNT // 2).run()
        took = time.monotonic() - start
        count, patient, late = good.tell()
        server.until_idle(connections=1)
        assert server.descriptors() == before, (server.descriptors(), before)
        memory = server.memory("VmHWM")
        assert count > 10 and patient <= PATIENT_S and late <= LATE_S, (count, patient, late)
        good.client.close()
        server.until_idle()
        assert os.stat(victim).st_size == SIZE
    return (f"{COUNT // 2} sessions in {took:.1f} s; the good client: {count} requests, "
            f"p99 {patient * 1e3:.1f} ms, most {late * 1e3:.1f} ms; memory {memory // KIB} KiB")


def over_unix_sockets():
    return hostile_sessions_cost_nobody_anything(False, SEED)


def over_tcp():
    return hostile_sessions_cost_nobody_anything(True, SEED + 1)


print(f"# seed {SEED}")
over_unix_sockets.__name__ = "hostile_sessions_cost_nobody_anything"
over_tcp.__name__ = "hostile_sessions_cost_nobody_anything_over_tcp"
sys.exit(nbd.run([over_unix_sockets, over_tcp]))
