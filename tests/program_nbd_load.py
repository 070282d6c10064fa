#!/usr/bin/env python3
"""Thousands of connections to onefd-nbd, in TAP.

Usage: program_nbd_load.py ONEFD_NBD [CONNECTIONS]

All of CONNECTIONS (4000) are opened, handshaken (GO) and kept; then each reads, twice over.
With NBD_PEERS=1 the same figures of qemu-nbd and of nbdkit, as comments.
"""
import os
import resource
import struct
import sys
import time

import nbd
from nbd import KIB, MIB, Client, Gone, Peer, Server, make
from tap import Skip

PROGRAM = sys.argv[1]
CONNECTIONS = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
HANDSHAKES_S, MEMORY = 6, 50 * MIB
SIZE = 4 * MIB


def allow_descriptors():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < CONNECTIONS + 100:
        raise Skip(f"no more than {hard} descriptors are allowed here")


def join(server):
    """All of them, each having said what it wants before anything was answered."""
    hello = struct.pack(">I", 3) + nbd.pack_option(nbd.GO, nbd.pack_name(b""))
    clients = []
    for _ in range(CONNECTIONS):
        clients.append(Client(server.address))
        clients[-1].send_bytes(hello)
    for client in clients:
        client.take(18)
        while client.option_reply(nbd.GO)[0] != nbd.REP_ACK:
            pass
    return clients


def read_all(clients, content):
    for i, client in enumerate(clients):
        client.send(nbd.READ, i * 997 % (SIZE - 4096), 4096)
    for i, client in enumerate(clients):
        at = i * 997 % (SIZE - 4096)
        assert client.reply().data == content[at:at + 4096], i


def measure(server, content):
    """Seconds for the handshakes and for two reads of each, and bytes of memory."""
    start = time.monotonic()
    clients = join(server)
    joined = time.monotonic()
    memory = server.memory()
    for _ in range(2):
        read_all(clients, content)
    return joined - start, time.monotonic() - joined, max(memory, server.memory()), clients


def show(who, joining, reading, memory):
    return (f"{who}: {CONNECTIONS} handshakes in {joining:.2f} s, {2 * CONNECTIONS} reads "
            f"in {reading:.2f} s, {memory // KIB} KiB")


def thousands_of_connections_are_handshaken_and_answered(**kind):
    allow_descriptors()
    path, content = make("disk", SIZE)
    with Server([PROGRAM], path, **kind) as server:
        server.counters()
        before = server.descriptors()
        joining, reading, memory, clients = measure(server, content)
        assert server.counters()["connections"] == CONNECTIONS
        for client in clients:
            client.close()
        server.until_idle()
        assert server.descriptors() == before
    said = show("onefd-nbd", joining, reading, memory)
    assert joining <= HANDSHAKES_S and memory <= MEMORY, said
    return said


def thousands_of_connections_by_tcp():
    return thousands_of_connections_are_handshaken_and_answered(tcp=True)


def peers_beside():
    path, content = make("disk", SIZE)
    said = []
    for name in nbd.PEERS:
        try:
            with Peer(name, path, CONNECTIONS + 1) as server:
                said.append(show(name, *measure(server, content)[:3]))
        except (AssertionError, Gone, Skip, OSError) as error:
            said.append(f"{name}: failed with {CONNECTIONS} connections: {error!r}")
    return "\n".join(said)


tests = [thousands_of_connections_are_handshaken_and_answered, thousands_of_connections_by_tcp]
if os.environ.get("NBD_PEERS"):
    tests.append(peers_beside)
sys.exit(nbd.run(tests))
