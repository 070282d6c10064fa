#!/usr/bin/env python3
"""Thousands of connections at once, in TAP.

Usage: program_httpd_load.py ONEFD_HTTPD [CONNECTIONS]

10 000, or as many as the hard limit on descriptors lets both sides have. Each is answered, twice,
by the right bytes, while all stay; then all go, and the descriptors with them.
"""
import os
import resource
import selectors
import shutil
import socket
import struct
import sys
import tempfile

from http_server import Server, request
from tap import PATIENCE, run, until

PROGRAM = os.path.realpath(sys.argv[1])
HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
# A server may want a second descriptor for each, of the file.
COUNT = min(int(sys.argv[2]) if len(sys.argv) > 2 else 10000, (HARD - 200) // 2)
TOP = tempfile.mkdtemp(prefix="onefd-httpd.")
NAMES = 50


def connect(port, i):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a port is free at once
    client.bind((f"127.0.0.{2 + i % 100}", 0))
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", port))
    return client


def ask_all(clients, contents):
    """Each its own file; how many answers are right. All have asked before the first is read."""
    selector = selectors.DefaultSelector()
    for i, client in enumerate(clients):
        selector.register(client, selectors.EVENT_WRITE, i)
    left = len(clients)
    while left:
        ready = selector.select(PATIENCE)
        assert ready, f"{left} could not ask"
        for key, _ in ready:
            key.fileobj.send(request(f"/{key.data % NAMES}"))
            selector.unregister(key.fileobj)
            left -= 1
    got = [b""] * len(clients)
    for i, client in enumerate(clients):
        selector.register(client, selectors.EVENT_READ, i)
    left = set(range(len(clients)))
    while left:
        ready = selector.select(PATIENCE)
        assert ready, f"{len(left)} of {len(clients)} are not answered"
        for key, _ in ready:
            data = key.fileobj.recv(1 << 16)
            assert data, f"{key.data} was hung up on after {got[key.data]!r:.200}"
            got[key.data] += data
            head, end, body = got[key.data].partition(b"\r\n\r\n")
            if end and len(body) >= len(contents[key.data % NAMES]):
                assert head.startswith(b"HTTP/1.1 200 "), head
                assert body == contents[key.data % NAMES], f"wrong bytes for {key.data}"
                selector.unregister(key.fileobj)
                left.discard(key.data)
    selector.close()


def thousands_of_connections_are_answered_while_all_stay():
    contents = [os.urandom(1000 + i) for i in range(NAMES)]
    for i, content in enumerate(contents):
        with open(f"{TOP}/{i}", "wb") as file:
            file.write(content)
    resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
    with Server(PROGRAM, TOP, "--timeout=86400") as server:
        assert server.get("/1").body == contents[1]
        server.wait_idle()
        before = server.descriptors()
        clients = [connect(server.port, i) for i in range(COUNT)]
        for _ in range(2):
            ask_all(clients, contents)
        assert server.counters()["connections"] == COUNT, server.counters()
        for client in clients:
            client.close()
        server.wait_idle()
        until(lambda: server.descriptors() == before)


print(f"# {COUNT} connections", flush=True)
try:
    status = run([thousands_of_connections_are_answered_while_all_stay])
finally:
    shutil.rmtree(TOP)
sys.exit(status)
