#!/usr/bin/env python3
"""What onefd-nbd promises, in TAP.

Usage: program_nbd.py ONEFD_NBD [RUNNER...]

RUNNER is put before the server: valgrind and its options. Started by faulty.sh, it
looks at what happens while a file is held by its disk, and at nothing else. ONLY=NAME
runs the tests of which the name begins so.
"""
import json
import os
import random
import re
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

import faulty
import nbd
import pages
from faulty import Disk
from nbd import MIB, Gone, Server, content_of, in_root, make
from tap import PATIENCE, Skip, needs, until

PROGRAM = [*sys.argv[2:], *sys.argv[1:2]]
SIZES = (1, 511, 4097, 10 * MIB + 3)
MOST = 32 * MIB  # of a request
HELD_MOST = 80 * MIB  # of buffers for one client: two requests of the largest and some


def serve(*arguments, **options):
    return Server(PROGRAM, *arguments, **options)


def direct_works():
    path, _ = make("direct?", 4096)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def ways():
    """Over both kinds of sockets, and past the page cache where that is possible."""
    for options in (), ("--direct",):
        if options and not direct_works():
            continue
        for tcp in False, True:
            yield options, {"tcp": tcp}


def call(*words):
    end = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False)
    assert end.returncode == 0, (words, end.returncode, end.stderr, end.stdout)
    return end.stdout


# ---- clients of others -------------------------------------------------------------


def nbdinfo_tells_names_sizes_and_flags():
    needs("nbdinfo")
    files = [make(name, size)[0] for name, size in (("first", 4097), ("zwei", 70000), ("leer", 0))]
    for options, kind in ways():
        with serve(*options, *files, **kind) as server:
            told = json.loads(call("nbdinfo", "--json", "--list", server.uri()))
            assert told["protocol"] == "newstyle-fixed" and not told["TLS"]
            sizes = {export["export-name"]: export["export-size"] for export in told["exports"]}
            assert sizes == {"first": 4097, "zwei": 70000, "leer": 0}, sizes
            for export in told["exports"]:
                assert not export["is_read_only"] and export["can_multi_conn"] and \
                    export["can_flush"] and export["can_fua"] and export["can_trim"] and \
                    export["can_zero"] and export["can_df"], export
                # Past the page cache there is nothing to bring in.
                assert export["can_cache"] == (not options), export
                assert export["contexts"] == ["base:allocation"], export
                assert export["block_size_minimum"] == 1, export
                assert export["block_size_maximum"] == MOST, export
            assert call("nbdinfo", "--size", server.uri("zwei")) == "70000\n"
            assert call("nbdinfo", "--size", server.uri()) == "4097\n"
        with serve(*options, "--read-only", *files, **kind) as server:
            export, = json.loads(call("nbdinfo", "--json", server.uri("zwei")))["exports"]
            assert export["is_read_only"] and not export["can_trim"] and not export["can_zero"]


def make_sparse(name, size):
    """Data in the second and the last MiB."""
    path = in_root(name)
    with open(path, "wb") as file:
        file.truncate(size)
        for at in MIB, size - MIB:
            file.seek(at)
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    return path


def extents_of(path):
    """(offset, length, hole) as the file system tells them."""
    extents = []
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE) == at
            try:
                end = os.lseek(file.fileno(), at, os.SEEK_DATA if hole else os.SEEK_HOLE)
            except OSError:
                end = size
            extents.append((at, end - at, hole))
            at = end
    return extents


def nbdinfo_maps_holes():
    needs("nbdinfo")
    path = make_sparse("sparse", 40 * MIB)
    for options, kind in ways():
        with serve(*options, path, **kind) as server:
            told = [(extent["offset"], extent["length"], extent["type"] == 3)
                    for extent in json.loads(call("nbdinfo", "--map", "--json", server.uri()))]
            assert told == extents_of(path), told


def nbdcopy_takes_every_byte():
    needs("nbdcopy")
    files = [make(f"f{size}", size) for size in (0, *SIZES)]
    sparse = make_sparse("sparse", 40 * MIB)
    files.append((sparse, content_of(sparse)))
    for options, kind in ways():
        with serve("--read-only", *options, *(path for path, _ in files), **kind) as server:
            for path, content in files:
                copy, _ = make("copy", 0)
                call("nbdcopy", server.uri(os.path.basename(path)), copy)
                assert content_of(copy) == content, path
            server.until_idle()


def nbdcopy_brings_every_byte():
    needs("nbdcopy")
    for options, kind in ways():
        paths = [make(f"f{size}", size)[0] for size in (0, *SIZES, 12 * MIB)]
        with serve(*options, *paths, **kind) as server:
            for path in paths:
                size = os.stat(path).st_size
                if size == 12 * MIB:
                    source = make_sparse("source", size)
                else:
                    source, _ = make("source", size)
                call("nbdcopy", "--flush", source, server.uri(os.path.basename(path)))
                assert content_of(path) == content_of(source), path
            server.until_idle()


def qemu_img_converts_and_compares():
    needs("qemu-img")
    for options, kind in ways():
        path = make_sparse("sparse", 40 * MIB)
        target = make("target", 40 * MIB)[0]
        with serve(*options, path, target, **kind) as server:
            source = server.uri("sparse")
            told = json.loads(call("qemu-img", "info", "--output=json", source))
            assert told["virtual-size"] == 40 * MIB, told
            call("qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw",
                 source, server.uri("target"))
            assert content_of(target) == content_of(path)
            call("qemu-img", "compare", "-f", "raw", "-F", "raw", source, target)
            copy = in_root("copy.qcow2")
            call("qemu-img", "convert", "-O", "qcow2", source, copy)
            call("qemu-img", "compare", "-f", "qcow2", "-F", "raw", copy, server.uri("target"))
        os.unlink(copy)


QEMU_IO = (
    ("write -P 1 0 1M", "read -P 1 0 1M"),
    ("write -P 2 1000 5000", "read -P 2 1000 5000", "read -P 1 0 1000", "read -P 1 6000 1000"),
    ("write -f -P 3 2M 64k", "read -P 3 2M 64k", "flush"),
    ("write -z 512k 64k", "read -P 0 512k 64k", "read -P 1 508k 4k", "read -P 1 576k 4k"),
    ("write -z -u 2M 64k", "read -P 0 2M 64k"),
    ("write -z -u 3000 10001", "read -P 0 3000 10001", "read -P 2 2000 1000"),
    ("discard 256k 128k", "read 256k 128k", "read -P 1 192k 64k", "read -P 1 384k 64k"),
    ("aio_write -P 4 4M 1M", "aio_write -P 5 5M 1M", "aio_read 0 1M", "aio_flush", "flush",
     "read -P 4 4M 1M", "read -P 5 5M 1M"),
    ("writev -P 6 7M 4k 512 12k", "readv -P 6 7M 512 4k", "map"),
)


def qemu_io_finds_what_it_wrote():
    needs("qemu-io")
    for options, kind in ways():
        path, _ = make("disk", bytes(8 * MIB))
        with serve(*options, path, **kind) as server:
            words = [word for commands in QEMU_IO for command in commands
                     for word in ("-c", command)]
            said = call("qemu-io", "-f", "raw", *words, server.uri())
            assert "failed" not in said.lower(), said
        assert content_of(path)[4 * MIB:6 * MIB] == b"\4" * MIB + b"\5" * MIB


def fio_verifies_what_it_wrote():
    needs("fio")
    if "nbd" not in call("fio", "--enghelp").split():
        raise Skip("fio without its nbd engine")
    for options, kind in ways():
        path, _ = make("disk", 16 * MIB)
        with serve(*options, path, **kind) as server:
            jobs = ("randrw", "512-100000"), ("randwrite", "4k"), ("write", "128k")
            for rw, blocks in jobs[:1] if kind["tcp"] else jobs:
                call("fio", "--name=v", "--ioengine=nbd", "--uri=" + server.uri(), f"--rw={rw}",
                     f"--bsrange={blocks}" if "-" in blocks else f"--bs={blocks}",
                     "--bs_unaligned", "--size=16m", "--io_size=4m", "--iodepth=32",
                     "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--thread")
            server.until_idle()


# ---- the handshake -----------------------------------------------------------------


def old_clients_are_served():
    path, content = make("old", 5000)
    with serve(path) as server:
        for flags in range(4):
            client = server.connect().greet(flags).export_name(b"old")
            assert client.size == 5000 and client.flags & nbd.HAS_FLAGS
            assert client.read(0, 5000) == content
            assert server.connect().greet(flags).export_name().size == 5000


def client_flags_that_nobody_knows_are_hung_up_on():
    path, _ = make("a", 10)
    with serve(path) as server:
        for flags in 4, 1 << 31, 0xFFFFFFFF:
            client = server.connect().greet(flags)
            assert client.closed()


def name_that_is_not_there_is_refused():
    path, content = make("there", 10)
    with serve(path) as server:
        client = server.connect().greet()
        client.send_option(nbd.EXPORT_NAME, b"none")
        assert client.closed()
        client = server.connect().greet()
        for name in b"none", b"ther", b"theree", b"there\0", b"../there", b"\xff", b"x" * 4096:
            for option in nbd.INFO, nbd.GO:
                kind = client.refused(option, nbd.pack_name(name))
                assert kind in (nbd.REP_ERR_UNKNOWN, nbd.REP_ERR_INVALID), (name, hex(kind))
        assert client.go(b"there").read(0, 10) == content


def everything_comes_in_any_pieces():
    path, content = make("pieces", 100)
    with serve(path) as server:
        client = server.connect()
        client.structured = True
        asked = b"".join((
            struct.pack(">I", 3), nbd.pack_option(nbd.STRUCTURED_REPLY),
            nbd.pack_option(nbd.SET_META_CONTEXT,
                            nbd.pack_queries(b"pieces", [b"base:allocation"])),
            nbd.pack_option(nbd.GO, nbd.pack_name(b"pieces")),
            client.request(nbd.READ, 10, 20), client.request(nbd.WRITE, 20, 5), b"hello",
            client.request(nbd.FLUSH), client.request(nbd.DISC)))
        for byte in asked:
            client.socket.sendall(bytes([byte]))
        client.take(18)
        replies = []
        while not replies or replies[-1][0] != nbd.REP_ACK or len(replies) < 5:
            magic, _, kind, length = client.unpack(">QIII")
            assert magic == nbd.OPTION_REPLY_MAGIC
            replies.append((kind, client.take(length)))
        # In any order, and if they were in flight together they may see each other.
        answers = {reply.handle: reply for reply in (client.reply() for _ in range(3))}
        assert not any(reply.error for reply in answers.values())
        assert answers[1].data[:10] == content[10:20]
        assert client.closed()
    assert content_of(path) == content[:20] + b"hello" + content[25:]


def whole_session_in_one_packet_is_understood():
    path, content = make("packet", 100000)
    with serve(path) as server:
        client = server.connect()
        asked = struct.pack(">I", 3) + nbd.pack_option(nbd.GO, nbd.pack_name(b"")) + \
            client.request(nbd.READ, 1, 99999) + client.request(nbd.DISC)
        client.send_bytes(asked)
        client.take(18)
        while client.option_reply(nbd.GO)[0] != nbd.REP_ACK:
            pass
        assert client.reply().data == content[1:] and client.closed()


def list_names_all():
    paths = [make(name, 10)[0] for name in ("a b", "zwölf", "x" * 255)]
    with serve(*paths) as server:
        client = server.connect().greet()
        replies = client.option(nbd.LIST)
        assert replies[-1] == (nbd.REP_ACK, b"")
        names = set()
        for kind, data in replies[:-1]:
            length, = struct.unpack_from(">I", data)
            assert kind == nbd.REP_SERVER
            names.add(data[4:4 + length].decode())
        assert names == {"a b", "zwölf", "x" * 255}, names
        assert client.refused(nbd.LIST, b"data") == nbd.REP_ERR_INVALID
        assert client.go("zwölf".encode()).size == 10


def info_tells_and_leaves_the_choice():
    first, content = make("first", 5001)
    second, _ = make("second", 70)
    with serve(first, second) as server:
        client = server.connect().greet()
        for name, size in (b"first", 5001), (b"second", 70), (b"", 5001):
            for infos in (), (nbd.INFO_NAME, nbd.INFO_BLOCK_SIZE, nbd.INFO_DESCRIPTION, 77):
                replies = client.option(nbd.INFO, nbd.pack_name(name, infos))
                assert replies[-1] == (nbd.REP_ACK, b""), replies
                assert all(kind == nbd.REP_INFO for kind, _ in replies[:-1])
                told = {struct.unpack_from(">H", data)[0]: data[2:] for _, data in replies[:-1]}
                assert struct.unpack(">QH", told[nbd.INFO_EXPORT])[0] == size
                if infos:
                    least, preferred, most = struct.unpack(">III", told[nbd.INFO_BLOCK_SIZE])
                    assert (least, most) == (1, MOST) and preferred >= 512
                    assert preferred & (preferred - 1) == 0
                    if nbd.INFO_NAME in told:
                        assert told[nbd.INFO_NAME] == (name or b"first")
                    assert 77 not in told
        assert client.go(b"first").read(0, 5001) == content


def options_that_nobody_knows_are_refused_and_passed_over():
    path, content = make("a", 10)
    with serve(path) as server:
        client = server.connect().greet()
        for option, data in (0, b""), (4, b""), (11, b""), (12, b"x"), (77, b"y" * 3000), \
                (0xFFFFFFFF, b""):
            assert client.refused(option, data) == nbd.REP_ERR_UNSUP, option
        assert client.refused(nbd.STARTTLS) == nbd.REP_ERR_POLICY
        assert client.go().read(0, 10) == content


def options_that_are_wrong_are_refused_and_passed_over():
    path, content = make("a", 10)
    with serve(path) as server:
        client = server.connect().greet()
        for option, data in (
                (nbd.GO, b""), (nbd.GO, b"\0\0\0"), (nbd.GO, b"\0\0\0\0"),
                (nbd.GO, b"\0\0\0\1\0\0"),
                (nbd.GO, b"\xff\xff\xff\xff\0\0"), (nbd.GO, b"\0\0\0\0\0\1"),
                (nbd.GO, b"\0\0\0\0\0\1\0"), (nbd.GO, b"\0\0\0\0\xff\xff"),
                (nbd.GO, b"\0\0\0\0\0\0more"), (nbd.INFO, b"\0\0\0\1a"),
                (nbd.INFO, b"\0\0\0\7a\0\0"),
                (nbd.STRUCTURED_REPLY, b"x"), (nbd.STARTTLS, b"x"), (nbd.LIST, b"\0\0\0\0")):
            kind = client.refused(option, data)
            assert kind == nbd.REP_ERR_INVALID or \
                (option, kind) == (nbd.STARTTLS, nbd.REP_ERR_POLICY), (option, data, hex(kind))
        assert client.option(nbd.STRUCTURED_REPLY) == [(nbd.REP_ACK, b"")]
        for option in nbd.LIST_META_CONTEXT, nbd.SET_META_CONTEXT:
            for data in (b"", b"\0\0\0\0", b"\0\0\0\0\0\0\0\1", b"\0\0\0\0\0\0\0\1\0\0\0\5base",
                         b"\0\0\0\0\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0",
                         b"\0\0\0\0\0\0\0\1\xff\xff\xff\xff", b"\0\0\0\0\0\0\0\0more"):
                assert client.refused(option, data) == nbd.REP_ERR_INVALID, (option, data)
        assert client.go().read(0, 10) == content


def options_that_are_too_long_cost_no_memory():
    path, content = make("a", 10)
    with serve(path) as server:
        other = server.client()
        before = server.memory()
        for option in nbd.GO, nbd.LIST, nbd.SET_META_CONTEXT, nbd.EXPORT_NAME, 77:
            client = server.connect().greet()
            client.send_bytes(nbd.pack_option(option, length=0xFFFFFFF0))
            try:
                for _ in range(64):
                    client.send_bytes(bytes(MIB))
            except Gone:
                pass
            assert other.read(0, 10) == content
            assert server.memory() < before + 16 * MIB
            client.close()


def abort_is_acknowledged():
    path, _ = make("a", 10)
    with serve(path) as server:
        client = server.connect().greet()
        assert client.option(nbd.ABORT) == [(nbd.REP_ACK, b"")] and client.closed()


def bad_option_magic_is_hung_up_on():
    path, _ = make("a", 10)
    with serve(path) as server:
        for magic in b"IHAVEOPS", b"NBDMAGIC", b"GET / HT", bytes(8):
            client = server.connect().greet()
            client.send_bytes(magic + bytes(8))
            assert client.closed()


# ---- contexts ----------------------------------------------------------------------


def contexts_of(client, option, name, queries):
    replies = client.option(option, nbd.pack_queries(name, queries))
    assert replies[-1] == (nbd.REP_ACK, b""), replies
    assert all(kind == nbd.REP_META_CONTEXT for kind, _ in replies[:-1])
    return [data[4:] for _, data in replies[:-1]]


def contexts_are_listed_and_set():
    path, _ = make("a", 10)
    with serve(path) as server:
        client = server.connect().greet()
        queries = nbd.pack_queries(b"", [b"base:allocation"])
        # Before structured replies there are none.
        assert client.refused(nbd.SET_META_CONTEXT, queries) == nbd.REP_ERR_INVALID
        client.option(nbd.STRUCTURED_REPLY)
        for name in b"", b"a":
            for queries in [], [b"base:"], [b"base:allocation"], [b"x:y", b"base:"]:
                assert contexts_of(client, nbd.LIST_META_CONTEXT, name, queries) == \
                    [b"base:allocation"], queries
            for queries in [b"x:y"], [b"base:none"], [b"base:allocation:more"], [b"qemu:"]:
                assert not contexts_of(client, nbd.LIST_META_CONTEXT, name, queries), queries
                assert not contexts_of(client, nbd.SET_META_CONTEXT, name, queries), queries
            assert not contexts_of(client, nbd.SET_META_CONTEXT, name, [])
            assert not contexts_of(client, nbd.SET_META_CONTEXT, name, [b"base:"])
            assert contexts_of(client, nbd.SET_META_CONTEXT, name,
                               [b"x:y", b"base:allocation"]) == [b"base:allocation"]
        for option in nbd.LIST_META_CONTEXT, nbd.SET_META_CONTEXT:
            assert client.refused(option, nbd.pack_queries(b"none", [])) == nbd.REP_ERR_UNKNOWN


def context_holds_for_the_export_it_was_set_for():
    first, second = (make(name, 5000)[0] for name in ("first", "second"))
    with serve(first, second) as server:
        def status(name, *sets):
            client = server.connect().greet()
            client.option(nbd.STRUCTURED_REPLY)
            for of, queries in sets:
                contexts_of(client, nbd.SET_META_CONTEXT, of, queries)
            client.structured = True
            client.learn(client.option(nbd.GO, nbd.pack_name(name)))
            return client.error(nbd.BLOCK_STATUS, 0, 5000)

        wanted = [b"base:allocation"]
        assert status(b"first", (b"first", wanted)) == 0
        assert status(b"", (b"", wanted)) == 0
        assert status(b"first") == nbd.EINVAL
        assert status(b"second", (b"first", wanted)) == nbd.EINVAL
        # The last one counts.
        assert status(b"first", (b"first", wanted), (b"first", [b"x:y"])) == nbd.EINVAL
        assert status(b"first", (b"second", wanted), (b"first", wanted)) == 0


# ---- reads and writes --------------------------------------------------------------


def reads_and_writes_are_those_of_a_file():
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    for options, kind in ways():
        size = 3 * MIB + 77
        path, content = make("model", size)
        model = bytearray(content)
        with serve(*options, path, **kind) as server:
            clients = [server.client(), server.client(structured=False),
                       server.connect().greet().export_name()]
            for _ in range(150):
                client = dice.choice(clients)
                length = dice.choice((1, 511, 512, 4096, 4097, 65536, 300000))
                at = dice.choice((0, 4096 * dice.randrange(size // 4096),
                                  dice.randrange(size - length), size - length))
                at = min(at, size - length)
                what = dice.random()
                if what < .4:
                    assert client.read(at, length) == model[at:at + length], (seed, at, length)
                elif what < .8:
                    model[at:at + length] = data = dice.randbytes(length)
                    client.write(at, data, dice.choice((0, nbd.FUA)))
                elif what < .95:
                    model[at:at + length] = bytes(length)
                    client.do(nbd.WRITE_ZEROES, at, length,
                              dice.choice((0, nbd.NO_HOLE, nbd.FUA)))
                else:
                    cached = client.error(nbd.CACHE, at, length)
                    assert cached == (0 if client.flags & nbd.SEND_CACHE else nbd.EINVAL), cached
                    client.do(nbd.FLUSH)
            for client in clients:
                assert client.read(0, size) == model, seed
                client.do(nbd.FLUSH)
            server.until_idle(connections=3)
        assert content_of(path) == model, seed


def largest_request_is_32_mib():
    path, content = make("large", MOST + 5)
    for options, kind in ways():
        with serve(*options, path, **kind) as server:
            for structured in True, False:
                client = server.client(structured=structured)
                assert client.read(5, MOST) == content[5:]
                client.write(3, content[3:3 + MOST])
            server.until_idle(connections=server.counters()["connections"])
            before = server.memory("VmHWM")
            # What is larger may lose its connection, and takes nothing.
            client = server.client()
            client.send(nbd.READ, 0, MOST + 1)
            try:
                assert client.reply().error in (nbd.EINVAL, nbd.EOVERFLOW, nbd.ENOMEM)
            except Gone:
                pass
            for length in MOST + 1, 1 << 31, 0xFFFFFFFF:
                client = server.client()
                client.send(nbd.WRITE, 0, length)
                try:
                    client.send_bytes(bytes(MOST))
                except Gone:
                    pass
                assert client.closed()
            assert server.memory("VmHWM") < before + 16 * MIB
    assert content_of(path) == content


def five_hundred_requests_in_one_packet_are_answered():
    path, content = make("disk", 4 * MIB)
    dice = random.Random(5)
    for options, kind in ways():
        with serve(*options, path, **kind) as server:
            client = server.client()
            packet, places = b"", {}
            for _ in range(500):
                at = dice.randrange(4 * MIB - 4096)
                packet += client.request(nbd.READ, at, 4096)
                places[client.handle] = at
            client.send_bytes(packet)
            while places:
                reply = client.reply()
                at = places.pop(reply.handle)
                assert reply.data == content[at:at + 4096]
            # And half as many writes, each beside the next.
            packet = b"".join(
                client.request(nbd.WRITE, 512 * i, 512) + bytes([i]) * 512 for i in range(250))
            client.send_bytes(packet)
            for _ in range(250):
                assert not client.reply().error
            assert client.read(0, 250 * 512) == b"".join(bytes([i]) * 512 for i in range(250))
            client.write(0, content[:250 * 512])


def out_of_range_is_refused():
    path, content = make("a", 10000)
    for options in (), ("--direct",) if direct_works() else ():
        with serve(*options, path) as server:
            client = server.client(contexts=[b"base:allocation"])
            for at, length in ((10000, 1), (9999, 2), (0, 10001), (1 << 62, 1), ((1 << 63) - 1, 2),
                               ((1 << 64) - 1, 1), ((1 << 64) - 1, 4096), (1 << 63, 512)):
                assert client.error(nbd.READ, at, length) == nbd.EINVAL, (at, length)
                assert client.error(nbd.WRITE, at, length, payload=bytes(length)) == nbd.ENOSPC
                assert client.error(nbd.WRITE_ZEROES, at, length) == nbd.ENOSPC
                assert client.error(nbd.TRIM, at, length) in (nbd.EINVAL, nbd.ENOSPC)
                assert client.error(nbd.CACHE, at, length) == nbd.EINVAL
                assert client.error(nbd.BLOCK_STATUS, at, length) == nbd.EINVAL
            assert client.read(0, 10000) == content
    assert os.stat(path).st_size == 10000


def what_nobody_knows_is_einval():
    path, content = make("a", 10000)
    with serve(path) as server:
        for structured in True, False:
            client = server.client(structured=structured)
            for command in 8, 9, 100, 0xFFFF:
                assert client.error(command, 0, 10) == nbd.EINVAL, command
            for flag in 1 << 5, 1 << 9, 1 << 15:
                assert client.error(nbd.READ, 0, 10, flag) == nbd.EINVAL, flag
                assert client.error(nbd.WRITE, 0, 10, flag, b"x" * 10) == nbd.EINVAL, flag
                assert client.error(nbd.WRITE_ZEROES, 0, 10, flag) == nbd.EINVAL, flag
            assert client.error(nbd.BLOCK_STATUS, 0, 10) == nbd.EINVAL
            assert client.read(0, 10000) == content
            # No length of any command but these two is that of a payload.
            for command in nbd.TRIM, nbd.CACHE, nbd.WRITE_ZEROES, nbd.BLOCK_STATUS:
                client.error(command, 0, 0)
            client.error(nbd.READ, 0, 0)
            client.error(nbd.WRITE, 0, 0)
            assert client.read(0, 10000) == content


def bad_request_magic_is_hung_up_on():
    path, content = make("a", 10)
    with serve(path) as server:
        other = server.client()
        for magic in 0, 0x25609514, nbd.SIMPLE_MAGIC, 0xFFFFFFFF:
            client = server.client()
            client.send_bytes(nbd.pack_request(nbd.READ, 0, 10, magic=magic))
            assert client.closed()
        assert other.read(0, 10) == content


def read_only_writes_nothing():
    path, content = make("a", 10000)
    with serve("--read-only", path) as server:
        for number in os.listdir(f"/proc/{server.pid}/fd"):
            if os.path.realpath(f"/proc/{server.pid}/fd/{number}") == os.path.realpath(path):
                with open(f"/proc/{server.pid}/fdinfo/{number}", encoding="ascii") as info:
                    flags = int(re.search(r"flags:\s*(\d+)", info.read())[1], 8)
                assert flags & os.O_ACCMODE == os.O_RDONLY
        client = server.client()
        assert client.flags & nbd.READ_ONLY
        assert not client.flags & (nbd.SEND_TRIM | nbd.SEND_WRITE_ZEROES)
        assert client.error(nbd.WRITE, 0, 5000, payload=bytes(5000)) == nbd.EPERM
        assert client.error(nbd.WRITE, 0, 5, nbd.FUA, payload=bytes(5)) == nbd.EPERM
        assert client.error(nbd.WRITE_ZEROES, 0, 5000) == nbd.EPERM
        assert client.error(nbd.TRIM, 0, 5000) == nbd.EPERM
        client.do(nbd.FLUSH)
        assert client.read(0, 10000) == content
    assert content_of(path) == content


def file_that_is_read_only_is_served_so():
    """Where that can be told: to root nothing is."""
    path, content = make("a", 1000)
    os.chmod(path, 0o444)
    with serve("--read-only", path) as server:
        assert server.client().read(0, 1000) == content


def structured_errors_and_whole_reads():
    path, content = make("a", 200000)
    with serve(path) as server:
        client = server.client()
        client.send(nbd.READ, 200000, 1)
        magic, flags, kind, _, length = client.unpack(">IHHQI")
        assert (magic, flags & 1) == (nbd.STRUCTURED_MAGIC, 1)
        assert kind in (nbd.CHUNK_ERROR, nbd.CHUNK_ERROR_OFFSET) and length >= 6
        error, text = struct.unpack_from(">IH", message := client.take(length))
        assert error == nbd.EINVAL and len(message) >= 6 + text
        message[6:6 + text].decode()
        client.asked.clear()
        reply = client.ask(nbd.READ, 1, 199998, nbd.DF)
        assert reply.error == nbd.EOVERFLOW or \
            (len(reply.chunks) == 1 and reply.data == content[1:-1]), reply.chunks
        reply = client.ask(nbd.READ, 7, 65536, nbd.DF)
        assert len(reply.chunks) == 1 and reply.data == content[7:7 + 65536]
        # DF means something only where there are chunks.
        assert server.client(structured=False).error(nbd.READ, 0, 10, nbd.DF) in (0, nbd.EINVAL)


def handles_come_back_as_they_were():
    path, content = make("a", 10)
    with serve(path) as server:
        for structured in True, False:
            client = server.client(structured=structured)
            for handle in 0, 1, 0xFFFFFFFFFFFFFFFF, 0x0123456789ABCDEF:
                client.handle = handle - 1
                client.read(0, 10)
                client.handle = handle - 1
                client.do(nbd.FLUSH)
            # Twice at once the same: the client's own affair, but both are answered.
            packet = client.request(nbd.READ, 0, 10) * 2
            client.send_bytes(packet)
            twice = client.asked[client.handle]
            for _ in range(2):
                client.asked[twice[0].handle] = (nbd.Reply(twice[0].handle), *twice[1:])
                assert client.reply().data == content


# ---- allocation --------------------------------------------------------------------


def status_tells_holes():
    path = make_sparse("sparse", 40 * MIB)
    extents = extents_of(path)
    for options, kind in ways():
        with serve(*options, path, **kind) as server:
            client = server.client(contexts=[b"base:allocation"])
            told, at = [], 0
            while at < 40 * MIB:
                reply = client.ask(nbd.BLOCK_STATUS, at, 40 * MIB - at)
                assert not reply.error and reply.extents
                for length, flags in reply.extents:
                    assert length and flags in (0, 3), (length, flags)
                    told.append((at, length, flags == 3))
                    at += length
            assert at == 40 * MIB and told == extents, told
            for at, length in (0, 1), (MIB - 1, 2), (MIB + 5, 100), (39 * MIB, MIB), (5, 39 * MIB):
                reply = client.ask(nbd.BLOCK_STATUS, at, length, nbd.REQ_ONE)
                (told, flags), = reply.extents
                assert 0 < told <= length
                start, size, hole = next(e for e in extents if e[0] <= at < e[0] + e[1])
                assert flags == 3 * hole and told == min(length, start + size - at)
            assert client.error(nbd.BLOCK_STATUS, 0, 0) == nbd.EINVAL


def trim_and_zeroes_free_and_keep_blocks():
    for options, kind in ways():
        path, content = make("disk", 4 * MIB)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        full = os.stat(path).st_blocks
        with serve(*options, path, **kind) as server:
            client = server.client()
            client.do(nbd.WRITE_ZEROES, MIB, MIB, nbd.NO_HOLE)
            client.do(nbd.FLUSH)
            assert client.read(MIB, MIB) == bytes(MIB)
            assert os.stat(path).st_blocks >= full, "NO_HOLE made one"
            client.do(nbd.WRITE_ZEROES, 2 * MIB, MIB)
            assert client.read(2 * MIB, MIB) == bytes(MIB)
            client.do(nbd.TRIM, 3 * MIB, MIB)
            client.do(nbd.FLUSH)
            if os.stat(path).st_blocks > full - MIB // 512:
                raise Skip("no holes can be made here")
            # What is trimmed in part of a block may stay, its neighbours must.
            client.do(nbd.TRIM, 1000, 100000)
            assert client.read(0, 1000) == content[:1000]
            assert client.read(101000, 1000) == content[101000:102000]
            client.do(nbd.WRITE_ZEROES, 200001, 100001)
            assert client.read(200000, 100003) == content[200000:200001] + bytes(100001) + \
                content[300002:300003]
            error = client.error(nbd.WRITE_ZEROES, 0, 4096, nbd.FAST_ZERO)
            assert error in ((0, nbd.ENOTSUP) if client.flags & nbd.SEND_FAST_ZERO
                             else (nbd.EINVAL,)), error
        assert os.stat(path).st_size == 4 * MIB


# ---- what is durable ---------------------------------------------------------------


SYNCS = re.compile(r"fdatasync\(|fsync\(|FSYNC|FDSYNC|RWF_D?SYNC")


class Trace:
    """What a server asks of the kernel, by strace, of the calls that write and sync."""

    def __init__(self, server):
        needs("strace")
        self.path, _ = make("trace", 0)
        self.process = subprocess.Popen(
            ["strace", "-f", "-o", self.path, "-p", str(server.pid), "-e",
             "trace=io_submit,fsync,fdatasync,pwrite64,pwritev,pwritev2,fallocate"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)
        line = self.process.stderr.readline().decode()
        if "attached" not in line:
            self.process.communicate()
            raise Skip(f"strace: {line}")

    def syncs(self):
        return sum(bool(SYNCS.search(line)) and "resumed" not in line
                   for line in content_of(self.path).decode(errors="replace").split("\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=PATIENCE)


def files_open(server, path):
    return sum(os.path.realpath(f"/proc/{server.pid}/fd/{fd}") == os.path.realpath(path)
               for fd in os.listdir(f"/proc/{server.pid}/fd"))


def flush_on_one_connection_covers_writes_of_another():
    path, _ = make("disk", MIB)
    for options, kind in ways():
        with serve(*options, path, **kind) as server:
            writer, other = server.client(), server.client()
            assert writer.flags & nbd.CAN_MULTI_CONN
            # What a descriptor has written any sync of the file covers, and its errors are
            # told to each descriptor once: one for all is what makes them seen.
            assert files_open(server, path) == 1
            with Trace(server) as trace:
                writer.write(0, b"x" * 4096)
                assert other.read(0, 4096) == b"x" * 4096
                before = trace.syncs()
                other.do(nbd.FLUSH)
                assert trace.syncs() > before
                before = trace.syncs()
                writer.do(nbd.FLUSH)
                assert trace.syncs() > before


def fua_is_on_the_disk_before_the_answer():
    path, _ = make("disk", MIB)
    for options, kind in ways():
        with serve(*options, path, **kind) as server, Trace(server) as trace:
            client = server.client()
            client.write(0, b"x" * 4096)
            client.write(5, b"x" * 100)
            assert trace.syncs() == 0
            for count, (command, at, length, payload) in enumerate((
                    (nbd.WRITE, 0, 4096, b"x" * 4096), (nbd.WRITE, 77, 5, b"yyyyy"),
                    (nbd.WRITE_ZEROES, 8192, 4096, b""), (nbd.WRITE_ZEROES, 77, 99, b""),
                    (nbd.TRIM, 65536, 65536, b"")), 1):
                assert not client.error(command, at, length, nbd.FUA, payload)
                assert trace.syncs() >= count, (command, at)


def acknowledged_writes_are_synced_at_the_end():
    path, _ = make("disk", MIB)
    server = serve(path)
    try:
        client = server.client()
        client.write(0, b"x" * 4096)
        with Trace(server) as trace:
            server.process.send_signal(signal.SIGTERM)
            server.gone()
            assert trace.process.wait(PATIENCE) is not None
            assert trace.syncs() > 0
    finally:
        server.process.kill()


# ---- what goes wrong with files ----------------------------------------------------


def file_that_shrinks_is_an_error_never_padded():
    for options, kind in ways():
        path, content = make("shrinks", 100000)
        with serve(*options, path, **kind) as server:
            client, plain = server.client(), server.client(structured=False)
            os.truncate(path, 10000)
            assert client.error(nbd.READ, 50000, 1000) == nbd.EIO
            assert client.error(nbd.READ, 5000, 20000) == nbd.EIO
            assert plain.error(nbd.READ, 50000, 1000) == nbd.EIO
            assert client.read(0, 10000) == content[:10000]
            # nothing stops a sparse write from making it whole again
            client.write(99999, b"z")
            assert client.read(99990, 10) == bytes(9) + b"z"
            assert plain.read(0, 10000) == content[:10000]


def read_that_fails_late_is_told_or_ends_the_connection():
    """After its header, that is: a large one is read as it is sent."""
    for flags in 0, nbd.DF, None:
        path, content = make("shrinks", 32 * MIB)
        with serve(path) as server:
            client = server.connect(receive_buffer=65536).greet().go(structured=flags is not None)
            client.send(nbd.READ, 0, 32 * MIB, flags or 0)
            assert not client.silent(PATIENCE)
            os.truncate(path, 20 * MIB)
            if flags is None:
                came = client.file.read()[16:]
                assert len(came) <= 20 * MIB and came == content[:len(came)]
                continue
            client.send(nbd.READ, 1000, 5000)
            answers = {reply.handle: reply for reply in (client.reply(), client.reply())}
            assert answers[1].error == nbd.EIO and len(answers[1].chunks) == 1
            assert answers[2].data == content[1000:6000]


def limit() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))


def file_that_may_not_grow_is_enospc():
    path = in_root("limited")
    with open(path, "wb") as file:
        file.truncate(100000)
    with serve(path, preexec=limit) as server:
        for structured in True, False:
            client = server.client(structured=structured)
            assert client.error(nbd.WRITE, 60000, 1000, payload=bytes(1000)) == nbd.ENOSPC
            assert client.read(60000, 1000) == bytes(1000)
            client.write(100, b"x" * 100)


def block_device_is_served():
    needs("losetup")
    image, content = make("image", 4 * MIB)
    made = subprocess.run(["losetup", "-f", "--show", image], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        raise Skip(f"losetup: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        for options in (), ("--direct",):
            with serve(*options, device) as server:
                client = server.client(os.path.basename(device).encode(),
                                       contexts=[b"base:allocation"])
                assert client.size == 4 * MIB
                assert client.read(1000, MIB) == content[1000:1000 + MIB]
                client.write(4096, b"x" * 5000)
                assert client.read(4096, 5000) == b"x" * 5000
                client.write(4096, content[4096:9096])
                client.do(nbd.WRITE_ZEROES, 2 * MIB, 65536)
                assert client.read(2 * MIB, 65536) == bytes(65536)
                client.write(2 * MIB, content[2 * MIB:2 * MIB + 65536])
                assert client.error(nbd.TRIM, 3 * MIB, 65536) in (0, nbd.ENOTSUP)
                client.write(3 * MIB, content[3 * MIB:3 * MIB + 65536])
                client.do(nbd.FLUSH)
                assert sum(length for length, _ in
                           client.ask(nbd.BLOCK_STATUS, 0, 4 * MIB).extents) <= 4 * MIB
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert content_of(image) == content


# ---- clients that are bad ----------------------------------------------------------


def half_requests_that_die_cost_nothing():
    path, content = make("disk", 8 * MIB)
    for kind in {"tcp": False}, {"tcp": True}:
        with serve(path, **kind) as server:
            other = server.client()
            before = server.descriptors()
            for end in nbd.Client.close, nbd.Client.reset:
                for length in 0, 1, 27, 28, 29, 1000, 70000:
                    client = server.client()
                    client.send_bytes((nbd.pack_request(nbd.WRITE, 0, 100000) +
                                       bytes(100000))[:length])
                    end(client)
                for _ in range(4):
                    client = server.client()
                    client.send_bytes(nbd.pack_request(nbd.READ, 0, 4 * MIB) * 10)
                    client.file.read(100000)
                    end(client)
                for length in range(0, 40, 7):
                    client = server.connect()
                    client.send_bytes((struct.pack(">I", 3) +
                                       nbd.pack_option(nbd.GO, nbd.pack_name(b"")))[:length])
                    end(client)
            assert other.read(200000, 100000) == content[200000:300000]
            server.until_idle(connections=1)
            assert server.descriptors() == before


def reader_that_stops_is_bounded_and_hung_up_on():
    path, content = make("disk", 8 * MIB)
    with serve("--stall-timeout=1", path) as server:
        other = server.client()
        before = server.memory()
        stuck = [server.client() for _ in range(4)]
        for client in stuck:
            client.socket.setblocking(False)
            try:
                for _ in range(1000):
                    client.socket.send(nbd.pack_request(nbd.READ, 0, MIB) * 10)
            except BlockingIOError:
                pass
        start, count, most = time.monotonic(), 0, 0
        while (now := server.counters())["connections"] == 5:
            assert other.read(1 << 20, 70000) == content[1 << 20:(1 << 20) + 70000]
            assert time.monotonic() < start + 20, "its time was over after 1 s"
            most = max(most, now["bytes"])
            count += 1
        assert count > 10
        assert most <= 4 * HELD_MOST, most
        assert server.memory("VmHWM") - before <= 4 * HELD_MOST + 16 * MIB
        server.until_idle(connections=1)
    return f"held for a client that does not read: {most / 4 / MIB:.1f} MiB"


def slow_reader_gets_every_byte():
    """A pause is shorter than the time-out, all of them are longer."""
    path, content = make("disk", 8 * MIB)
    with serve("--stall-timeout=1", path) as server:
        client = server.connect(receive_buffer=4096).greet().go()
        clock = select.poll()
        for _ in range(4):
            client.send(nbd.READ, 0, 8 * MIB)
        for _ in range(4):
            clock.poll(400)
            assert client.reply().data == content


def payload_that_is_refused_may_take_its_time():
    """It holds nothing: whatever comes of it is progress. A pause is as above."""
    path, content = make("disk", MIB)
    with serve("--stall-timeout=1", path) as server:
        client = server.client()
        client.send(nbd.WRITE, MIB, 4096)
        assert client.reply().error == nbd.ENOSPC
        for _ in range(4):
            client.send_bytes(bytes(1024))
            assert client.silent(.4)
        assert client.read(0, MIB) == content


def clients_that_stall_are_hung_up_on():
    path, content = make("disk", MIB)
    with serve("--handshake-timeout=1", "--idle-timeout=86400", "--stall-timeout=1",
               path) as server:
        idle = server.client()
        start = time.monotonic()
        silent = server.connect()
        half = server.connect().greet()
        half.send_bytes(nbd.pack_option(nbd.GO, nbd.pack_name(b""))[:10])
        chatty = server.connect().greet()
        header = server.client()
        header.send_bytes(nbd.pack_request(nbd.READ, 0, 10)[:20])
        payload = server.client()
        payload.send_bytes(nbd.pack_request(nbd.WRITE, 0, 1000) + bytes(999))
        # No handshake is prolonged by going on for ever.
        try:
            while time.monotonic() < start + PATIENCE:
                chatty.option(nbd.LIST)
        except Gone:
            pass
        for client in silent, half, header, payload:
            client.socket.settimeout(PATIENCE)
            client.file.read(18 if client is silent else 0)
            assert client.closed()
        took = time.monotonic() - start
        assert idle.read(0, MIB) == content
        assert .9 < took < 10, took
        server.until_idle(connections=1)


def idle_clients_are_hung_up_on_if_that_is_asked_for():
    path, content = make("disk", MIB)
    with serve("--idle-timeout=1", path) as server:
        used, unused = server.client(), server.client()
        start = time.monotonic()
        while not select.select([unused.socket], [], [], 0)[0]:
            assert used.read(0, 4096) == content[:4096]
            assert time.monotonic() < start + PATIENCE
        assert time.monotonic() > start + .9
        assert unused.closed() and used.closed()
        server.until_idle()


def disconnect_comes_after_what_was_asked():
    path, content = make("disk", 4 * MIB)
    with serve(path) as server:
        client = server.client()
        client.send_bytes(b"".join(client.request(nbd.READ, MIB * i, MIB) for i in range(4)) +
                          client.request(nbd.DISC) + b"what follows is nobody's")
        answers = {reply.handle: reply.data for reply in (client.reply() for _ in range(4))}
        assert b"".join(answers[i] for i in range(1, 5)) == content
        assert client.closed()
        server.until_idle()


def end_of_what_a_client_sends_is_a_disconnect():
    path, content = make("disk", MIB)
    with serve(path) as server:
        client = server.client()
        client.send(nbd.READ, 0, MIB)
        client.socket.shutdown(socket.SHUT_WR)
        try:
            assert client.reply().data == content
        except Gone:
            pass  # it may as well be taken for gone
        client.close()
        server.until_idle()


# ---- many clients ------------------------------------------------------------------


def more_connections_than_allowed_wait_their_turn():
    path, content = make("disk", 1000)
    with serve("--connections=2", path) as server:
        first = [server.client() for _ in range(2)]
        third = server.connect()
        assert first[0].read(0, 1000) == content and third.silent(.05)
        assert server.counters()["connections"] == 2
        assert first[1].disconnect()
        assert third.greet().go().read(0, 1000) == content
        fourth = server.connect()
        assert first[0].read(0, 1000) == content and fourth.silent(.05)
        first[0].close()
        assert fourth.greet().go().read(0, 1000) == content


def no_descriptor_does_not_spin():
    path, content = make("disk", 1000)
    for kind in {"tcp": False}, {"tcp": True}:
        with serve("--handshake-timeout=86400", path, **kind) as server:
            first = server.client()
            server.allow_no_more_descriptors()
            waiting = [server.connect() for _ in range(3)]
            assert first.read(0, 1000) == content
            before = server.cpu()
            assert waiting[0].silent(.4)
            assert server.cpu() - before <= .1, server.cpu() - before
            assert first.read(0, 1000) == content
            first.close()
            assert waiting[0].greet().go().read(0, 1000) == content
            waiting[0].close()
            assert waiting[1].greet().go().read(0, 1000) == content
            for client in waiting[1:]:
                client.close()
            server.until_idle()


def descriptors_are_as_many_as_are_allowed():
    path, _ = make("disk", 1000)
    soft = min(256, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    with serve(path, preexec=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
               ) as server:
        now, most = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        assert now == most, (now, most)


def exports_are_told_apart():
    files = [make(f"e{i}", 10000 + i) for i in range(20)]
    with serve(*(path for path, _ in files)) as server:
        clients = [server.client(os.path.basename(path).encode()) for path, _ in files]
        for client, (path, content) in zip(clients, files):
            assert client.read(0, len(content)) == content
            client.write(0, os.path.basename(path).encode())
        for path, content in files:
            name = os.path.basename(path).encode()
            assert content_of(path) == name + content[len(name):]


# ---- the end -----------------------------------------------------------------------


def stopped_with_requests_in_hand_answers_them():
    for signo in signal.SIGTERM, signal.SIGINT:
        for options, kind in ways():
            path, content = make("disk", 8 * MIB)
            server = serve(*options, path, **kind)
            with server:
                clients = [server.client() for _ in range(8)]
                written = {}
                for number, client in enumerate(clients):
                    packet = b""
                    for i in range(64):
                        at = (number * 64 + i) * 8192
                        packet += client.request(nbd.WRITE, at, 8192) + bytes([number + 1]) * 8192
                        written[number, client.handle] = at
                        packet += client.request(nbd.READ, at, 512)
                    client.socket.setblocking(False)
                    try:
                        client.socket.send(packet)
                    except BlockingIOError:
                        pass
                    client.socket.settimeout(PATIENCE)
                answers = [[clients[0].reply()]] + [[] for _ in clients[1:]]
                server.process.send_signal(signo)
                for number, client in enumerate(clients):
                    try:
                        while True:
                            answers[number].append(client.reply())
                    except Gone as end:
                        # At the end of an answer, never within one.
                        assert end.args in ((), (0,)), end.args
                server.gone()
                now = content_of(path)
                for number, replies in enumerate(answers):
                    for reply in replies:
                        at = written.get((number, reply.handle))
                        if at is not None and not reply.error:
                            assert now[at:at + 8192] == bytes([number + 1]) * 8192
            make("disk", content)


def stopped_beside_clients_that_do_nothing_ends_at_once():
    path, _ = make("disk", 8 * MIB)
    for kind in {"tcp": False}, {"tcp": True}:
        with serve(path, **kind) as server:
            kept = [server.connect(), server.connect().greet(), server.client()]
            kept.append(server.client())
            kept[-1].send_bytes(nbd.pack_request(nbd.WRITE, 0, 1000)[:20])
            server.counters()
            start = time.monotonic()
            server.stop()
            assert time.monotonic() - start < 4, "that took as long as for answers not read"


def stopped_beside_a_reader_that_stops_ends():
    path, _ = make("disk", 8 * MIB)
    with serve("--stall-timeout=1", path) as server:
        client = server.client()
        client.send_bytes(nbd.pack_request(nbd.READ, 0, 8 * MIB) * 4)
        server.counters()
        server.stop()


def counters_are_back_at_0():
    path, _ = make("disk", MIB)
    with serve(path) as server:
        server.until_idle()
        clients = [server.client() for _ in range(3)]
        server.until_idle(connections=3)
        for client in clients:
            client.read(0, MIB)
            client.write(0, bytes(1000))
        server.until_idle(connections=3)
        for client in clients:
            assert client.disconnect()
        server.until_idle()


# ---- usage -------------------------------------------------------------------------


def end_of(*arguments):
    end = subprocess.run([*PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, timeout=10, check=False)
    return end.returncode, end.stdout, end.stderr


def wrong_usage_is_status_2():
    path, _ = make("disk", 10)
    unix = "--unix=" + in_root("never")
    for arguments in (
            (), ("--nonsense", path), ("--connections=0", path), ("--connections=x", path),
            ("--connections=-1", path), ("--handshake-timeout=x", path),
            ("--stall-timeout=0", path),
            ("--idle-timeout=-1", path), ("--listen=nonsense", path), ("--listen=127.0.0.1:", path),
            ("--listen=127.0.0.1:65536", path), ("--listen=127.0.0.1:x", path),
            ("--listen=", path), ("--unix=", path), (unix, "--listen=127.0.0.1:0", path),
            ("--connections=1000000000000000000000", path)):
        status, said, complaint = end_of(*arguments)
        assert (status, said) == (2, "") and complaint, (arguments, status, said, complaint)
    status, said, complaint = end_of("--help")
    assert status == 0 and "usage" in said.lower() and not complaint


def what_cannot_start_is_status_1_and_a_line():
    path, _ = make("disk", 10)
    unix = "--unix=" + in_root("never")
    os.makedirs(in_root("dir/disk"), exist_ok=True)
    os.makedirs(in_root("other"), exist_ok=True)
    if not os.path.exists(in_root("fifo")):
        os.mkfifo(in_root("fifo"))
    same, _ = make("other/disk", 10)
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    stale, _ = make("stale", 0)
    left = socket.socket(socket.AF_UNIX)
    left.bind(in_root("left"))
    left.close()
    for arguments in (
            (unix, in_root("missing")), (unix, in_root("dir")), (unix, in_root("fifo")),
            (unix, "/dev/null"), (unix, ""), (unix, path, same), (unix, path, path),
            (unix, path, in_root("missing")), ("--unix=" + stale, path),
            ("--unix=" + in_root("left"), path), ("--unix=" + in_root("none/socket"), path),
            ("--unix=" + in_root("x" * 200), path),
            (f"--listen=127.0.0.1:{taken.getsockname()[1]}", path),
            ("--listen=192.0.2.1:0", path)):
        status, said, complaint = end_of(*arguments)
        assert (status, said, complaint.count("\n")) == (1, "", 1), (arguments, status, complaint)
        assert complaint.startswith("onefd-nbd: "), complaint
        assert not os.path.lexists(in_root("never")), arguments
    taken.close()
    assert os.path.exists(stale) and stat.S_ISSOCK(os.stat(in_root("left")).st_mode)


def addresses_are_those_that_are_asked_for():
    path, content = make("disk", 10)
    for family, host in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]"):
        try:
            with socket.socket(family) as probe:
                probe.bind((host.strip("[]"), 0))
        except OSError:
            continue
        process = subprocess.Popen([*PROGRAM, f"--listen={host}:0", path],
                                   stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()
            assert re.fullmatch(re.escape(f"listening on {host}:") + r"\d+\n", line), line
            address = host.strip("[]"), int(line.rsplit(":", 1)[1])
            with socket.create_connection(address) as client:
                assert client.recv(16, socket.MSG_WAITALL) == nbd.GREETING
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
        assert process.returncode == 0


# ---- a disk that takes its time ----------------------------------------------------


def held_file(name):
    return os.path.join(faulty.directory(), name)


def hold(disk, name, low=0, high=1 << 26):
    pages.forget(held_file(name))
    disk.order("hold", name, low, high)


def serve_held(*options):
    path, content = make("quick", MIB)
    server = Server(PROGRAM, "--read-only", *options, held_file("a"), held_file("b"), path)
    return server, content


def read_that_waits_holds_up_nothing_else():
    for options in (), ("--direct",):
        server, quick = serve_held(*options)
        with Disk() as disk, server:
            slow, other = server.client(b"a"), server.client(b"quick")
            first = slow.read(0, 4096)
            beside = server.client(b"a")
            beside.read(0, 4096)
            hold(disk, "a", 32 * MIB)
            late = slow.send(nbd.READ, 40 * MIB, 4096)
            disk.wait_held()
            for _ in range(20):
                assert other.read(0, MIB) == quick
            # Nor of the same connection: answers come as they are ready.
            assert slow.read(0, 4096) == first and beside.read(0, 4096) == first
            assert slow.silent(0)
            assert server.counters()["requests"] == 1
            disk.order("release")
            reply = slow.reply()
            assert reply.handle == late and not reply.error
            server.until_idle(connections=3)


def client_that_goes_while_its_reads_wait_costs_nothing():
    for options in (), ("--direct",):
        server, quick = serve_held(*options)
        with Disk() as disk, server:
            other = server.client(b"quick")
            before = server.descriptors()
            hold(disk, "a")
            for _ in range(4):
                client = server.client(b"a")
                client.send(nbd.READ, 0, 4 * MIB)
                client.send(nbd.READ, 8 * MIB, MIB)
                until(lambda: server.counters()["requests"] >= 2)
                client.close()
            disk.wait_held()
            assert other.read(0, MIB) == quick
            disk.order("release")
            server.until_idle(connections=1)
            assert server.descriptors() == before


def time_that_the_disk_takes_is_not_the_client_s():
    server, _ = serve_held("--stall-timeout=1", "--idle-timeout=1")
    with Disk() as disk, server:
        hold(disk, "a")
        patient = server.client(b"a")
        patient.send(nbd.READ, 0, 4096)
        disk.wait_held()
        assert server.client(b"quick").closed()  # a second has gone by
        disk.order("release")
        assert patient.reply().data


def read_that_fails_is_eio():
    for options in (), ("--direct",):
        server, _ = serve_held(*options)
        with Disk() as disk, server:
            for structured in True, False:
                client = server.client(b"b", structured=structured)
                pages.forget(held_file("b"))
                disk.order("fail", "b", 16 * MIB, 1 << 26, 5)
                assert client.error(nbd.READ, 32 * MIB, 65536) == nbd.EIO
                assert client.error(nbd.READ, 16 * MIB - 4096, 8192) == nbd.EIO
                disk.order("release")
                assert len(client.read(32 * MIB, 65536)) == 65536


def stopped_while_reads_wait_answers_them():
    for options in (), ("--direct",):
        server, _ = serve_held(*options)
        with Disk() as disk, server:
            hold(disk, "a")
            clients = [server.client(b"a") for _ in range(4)]
            idle = server.client(b"quick")
            for client in clients:
                client.send(nbd.READ, 0, 65536)
            until(lambda: server.counters()["requests"] == 4)
            disk.wait_held()
            server.process.send_signal(signal.SIGTERM)
            assert idle.closed()
            assert server.process.poll() is None
            disk.order("release")
            for client in clients:
                assert len(client.reply().data) == 65536 and client.closed()
            server.gone()


SERVED = (
    nbdinfo_tells_names_sizes_and_flags, nbdinfo_maps_holes, nbdcopy_takes_every_byte,
    nbdcopy_brings_every_byte, qemu_img_converts_and_compares, qemu_io_finds_what_it_wrote,
    fio_verifies_what_it_wrote,
    old_clients_are_served, client_flags_that_nobody_knows_are_hung_up_on,
    name_that_is_not_there_is_refused, everything_comes_in_any_pieces,
    whole_session_in_one_packet_is_understood, list_names_all, info_tells_and_leaves_the_choice,
    options_that_nobody_knows_are_refused_and_passed_over,
    options_that_are_wrong_are_refused_and_passed_over,
    options_that_are_too_long_cost_no_memory, abort_is_acknowledged,
    bad_option_magic_is_hung_up_on, contexts_are_listed_and_set,
    context_holds_for_the_export_it_was_set_for,
    reads_and_writes_are_those_of_a_file, largest_request_is_32_mib,
    five_hundred_requests_in_one_packet_are_answered, out_of_range_is_refused,
    what_nobody_knows_is_einval, bad_request_magic_is_hung_up_on, read_only_writes_nothing,
    file_that_is_read_only_is_served_so, structured_errors_and_whole_reads,
    handles_come_back_as_they_were, status_tells_holes, trim_and_zeroes_free_and_keep_blocks,
    flush_on_one_connection_covers_writes_of_another, fua_is_on_the_disk_before_the_answer,
    acknowledged_writes_are_synced_at_the_end,
    file_that_shrinks_is_an_error_never_padded,
    read_that_fails_late_is_told_or_ends_the_connection, file_that_may_not_grow_is_enospc,
    block_device_is_served, half_requests_that_die_cost_nothing,
    reader_that_stops_is_bounded_and_hung_up_on, slow_reader_gets_every_byte,
    payload_that_is_refused_may_take_its_time, clients_that_stall_are_hung_up_on,
    idle_clients_are_hung_up_on_if_that_is_asked_for,
    disconnect_comes_after_what_was_asked, end_of_what_a_client_sends_is_a_disconnect,
    more_connections_than_allowed_wait_their_turn, no_descriptor_does_not_spin,
    descriptors_are_as_many_as_are_allowed, exports_are_told_apart,
    stopped_with_requests_in_hand_answers_them,
    stopped_beside_clients_that_do_nothing_ends_at_once, stopped_beside_a_reader_that_stops_ends,
    counters_are_back_at_0, wrong_usage_is_status_2, what_cannot_start_is_status_1_and_a_line,
    addresses_are_those_that_are_asked_for)

HELD = (
    read_that_waits_holds_up_nothing_else, client_that_goes_while_its_reads_wait_costs_nothing,
    time_that_the_disk_takes_is_not_the_client_s, read_that_fails_is_eio,
    stopped_while_reads_wait_answers_them)

ONLY = os.environ.get("ONLY", "")
sys.exit(nbd.run([test for test in (HELD if faulty.SOCKET else SERVED)
                  if test.__name__.startswith(ONLY)]))
