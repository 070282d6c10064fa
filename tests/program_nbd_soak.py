#!/usr/bin/env python3
"""onefd-nbd in use for long, in TAP.

Usage: program_nbd_soak.py ONEFD_NBD [SECONDS [SEED]]

For SECONDS (600) sixteen clients, a process each, write and verify ranges of their own,
die in the midst, stall, leave, and come again. At the end nothing may be left of them:
no descriptor, no memory beyond that of the first tenth, no request; and no wrong byte.
"""
import os
import random
import select
import sys
import time
import traceback

import nbd
from nbd import KIB, MIB, Client, Gone, Server, make

PROGRAM = sys.argv[1]
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 600
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32)
CLIENTS = 16
RANGE = 4 * MIB
SCRATCH = MIB  # of it: where nothing is looked at, for writes that died may yet come
GROWTH = 16 * MIB


class Worker:
    def __init__(self, number, address, content, end):
        self.dice = random.Random(SEED + number)
        self.address, self.base, self.end = address, number * RANGE, end
        self.model = bytearray(content[self.base:self.base + RANGE])
        self.client = None
        self.counts = dict.fromkeys(("requests", "deaths", "stalls", "losses"), 0)

    def work(self):
        actions = ((self.write, 30), (self.read, 40), (self.zero, 8), (self.pipeline, 8),
                   (self.others, 6), (self.die, 4), (self.leave, 3), (self.stall, 1))
        names, weights = zip(*actions)
        while time.monotonic() < self.end:
            if not self.client:
                self.join()
            self.dice.choices(names, weights)[0]()
            self.counts["requests"] += 1
        if not self.client:
            self.join()
        assert self.client.read(self.base + SCRATCH, RANGE - SCRATCH) == self.model[SCRATCH:]
        self.client.do(nbd.FLUSH)

    def join(self):
        self.client = Client(self.address).greet().go(structured=self.dice.random() < .7)

    def range(self):
        length = self.dice.choice((1, 512, 4096, 4097, 65536, 300000))
        return self.dice.randrange(SCRATCH, RANGE - length), length

    def write(self):
        at, length = self.range()
        self.model[at:at + length] = data = self.dice.randbytes(length)
        self.client.write(self.base + at, data, self.dice.choice((0, 0, 0, nbd.FUA)))

    def read(self):
        at, length = self.range()
        assert self.client.read(self.base + at, length) == self.model[at:at + length], at

    def zero(self):
        at, length = self.range()
        self.model[at:at + length] = bytes(length)
        self.client.do(nbd.WRITE_ZEROES, self.base + at, length,
                       self.dice.choice((0, nbd.NO_HOLE, nbd.FUA)))

    def pipeline(self):
        asked = {}
        for _ in range(50):
            at, length = self.range()
            asked[self.client.send(nbd.READ, self.base + at, length)] = at, length
        while asked:
            reply = self.client.reply()
            at, length = asked.pop(reply.handle)
            assert not reply.error and reply.data == self.model[at:at + length], at

    def others(self):
        at, length = self.range()
        command = self.dice.choice((nbd.CACHE, nbd.FLUSH))
        if command == nbd.FLUSH or self.client.flags & nbd.SEND_CACHE:
            self.client.do(command, *(() if command == nbd.FLUSH else (self.base + at, length)))

    def die(self):
        self.counts["deaths"] += 1
        length = self.dice.choice((1, 5000, 700000))
        at = self.base + self.dice.randrange(SCRATCH - length)
        packet = nbd.pack_request(nbd.READ, self.base, RANGE) * self.dice.choice((0, 1, 9)) + \
            nbd.pack_request(nbd.WRITE, at, length) + bytes(length)
        try:
            self.client.socket.setblocking(False)
            self.client.socket.send(packet[:self.dice.randrange(len(packet))])
        except BlockingIOError:
            pass
        self.dice.choice((Client.close, Client.reset))(self.client)
        self.client = None

    def leave(self):
        assert self.client.disconnect()
        self.client.close()
        self.client = None

    def stall(self):
        """For less or more than is allowed."""
        self.counts["stalls"] += 1
        try:
            for _ in range(8):
                self.client.send(nbd.READ, self.base + SCRATCH, RANGE - SCRATCH)
            select.select([], [], [], min(self.dice.choice((.1, .5, 4)),
                                          max(0, self.end - time.monotonic())))
            for _ in range(8):
                assert self.client.reply().data == self.model[SCRATCH:]
        except Gone:
            self.counts["losses"] += 1
            self.client.close()
            self.client = None


def start(number, server, content, end):
    """Its pid, and what it will tell."""
    told, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            worker = Worker(number, server.address, content, end)
            worker.work()
            os.write(telling, repr(worker.counts).encode())
            status = 0
        except BaseException:  # pylint: disable=broad-except
            os.write(telling, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(telling)
    return pid, os.fdopen(told)


def soak(*options, **kind):
    path, content = make("disk", CLIENTS * RANGE)
    with Server([PROGRAM], "--stall-timeout=2", *options, path, **kind) as server:
        server.client().disconnect()
        server.until_idle()
        before = server.descriptors()
        end = time.monotonic() + SECONDS / 2
        workers = [start(number, server, content, end) for number in range(CLIENTS)]
        del content
        select.select([], [], [], SECONDS / 20)
        early = server.memory()
        totals, wrong = {}, ""
        for pid, told in workers:
            said = told.read()
            if os.waitpid(pid, 0)[1]:
                wrong += said
                continue
            for name, count in eval(said).items():  # pylint: disable=eval-used
                totals[name] = totals.get(name, 0) + count
        assert not wrong, wrong
        server.until_idle()
        assert server.descriptors() == before
        late = server.memory()
        assert late <= early + GROWTH, (early, late)
    return f"{totals}, memory {early // KIB} KiB and {late // KIB} KiB"


def use_for_long_leaves_nothing_behind():
    return soak()


def use_for_long_by_tcp_past_the_page_cache_leaves_nothing_behind():
    return soak("--direct", tcp=True)


print(f"# seed {SEED}")
sys.exit(nbd.run([use_for_long_leaves_nothing_behind,
                  use_for_long_by_tcp_past_the_page_cache_leaves_nothing_behind]))
