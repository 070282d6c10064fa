"""What the tests of onefd-nbd share: its start and end, and NBD clients by hand.

Not a test. The protocol is here a second time on purpose, from its specification
(fixed newstyle with structured replies): what the server takes for granted is not
asked of the same source.
"""
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import tempfile

import tap
from tap import PATIENCE, Child, needs, until

ROOT = tempfile.mkdtemp(prefix="onefd-nbd.")
KIB, MIB = 1 << 10, 1 << 20

GREETING = b"NBDMAGICIHAVEOPT"
OPTION_MAGIC, OPTION_REPLY_MAGIC = 0x49484156454F5054, 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_MAGIC, STRUCTURED_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
FIXED_NEWSTYLE, NO_ZEROES = 1, 2

(EXPORT_NAME, ABORT, LIST, _, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META_CONTEXT,
 SET_META_CONTEXT) = range(1, 11)
REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = range(1, 5)
(REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID, REP_ERR_PLATFORM, REP_ERR_TLS_REQD,
 REP_ERR_UNKNOWN, REP_ERR_SHUTDOWN, REP_ERR_BLOCK_SIZE_REQD, REP_ERR_TOO_BIG) = \
    range((1 << 31) + 1, (1 << 31) + 10)
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

(HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES, SEND_DF,
 CAN_MULTI_CONN, SEND_RESIZE, SEND_CACHE, SEND_FAST_ZERO) = (1 << bit for bit in range(12))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = (1 << bit for bit in range(5))
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS = 0, 1, 2, 5
CHUNK_ERROR, CHUNK_ERROR_OFFSET = 0x8001, 0x8002
EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108


class Gone(Exception):
    """The server has closed the connection."""


# ---- servers ------------------------------------------------------------------


class Server(Child):
    """onefd-nbd, on a UNIX socket, or with tcp=True on a port of its own choice."""

    count = 0

    def __init__(self, program, *arguments, tcp=False, preexec=None):
        Server.count += 1
        self.path = None if tcp else os.path.join(ROOT, f"s{Server.count}")
        where = "--listen=127.0.0.1:0" if tcp else f"--unix={self.path}"
        self.process = subprocess.Popen(
            [*program, where, *map(str, arguments)], bufsize=0, preexec_fn=preexec,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on "), (line, self.process.communicate()[1])
        said = line[len("listening on "):-1]
        if tcp:
            host, port = said.rsplit(":", 1)
            self.address = (host.strip("[]"), int(port))
        else:
            assert said == self.path, said
            self.address = self.path

    @property
    def pid(self):
        return self.process.pid

    def uri(self, name=""):
        if self.path:
            return f"nbd+unix:///{name}?socket={self.path}"
        return f"nbd://{self.address[0]}:{self.address[1]}/{name}"

    def connect(self, **options):
        return Client(self.address, **options)

    def client(self, name=b"", **options):
        """A client in transmission."""
        return Client(self.address).greet().go(name, **options)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self, word="VmRSS"):
        """Bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(word + ":"):
                    return int(line.split()[1]) * KIB
        raise AssertionError(word)

    def cpu(self):
        """Seconds of user and system time, all threads."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            ticks = file.read().rsplit(") ", 1)[1].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def counters(self):
        """What it says of itself at SIGUSR1."""
        self.process.send_signal(signal.SIGUSR1)
        assert select.select([self.process.stderr], [], [], PATIENCE)[0], "SIGUSR1: no line"
        line = self.process.stderr.readline().decode()
        words = dict(word.split("=") for word in line.split())
        assert list(words) == ["connections", "requests", "pending", "bytes"], line
        return {name: int(value) for name, value in words.items()}

    def until_idle(self, connections=0):
        """Until nothing is left of any request."""
        until(lambda: self.counters() == {
            "connections": connections, "requests": 0, "pending": 0, "bytes": 0},
            lambda: self.counters())

    def allow_no_more_descriptors(self, but=0):
        fds = {int(fd) for fd in os.listdir(f"/proc/{self.pid}/fd")}
        # The lowest that is free, for a runner may have some high up.
        limit = min(set(range(len(fds) + 1)) - fds) + but
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def stop(self, signo=signal.SIGTERM):
        self.process.send_signal(signo)
        self.gone()

    def gone(self):
        said = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, *said) == (0, b"", b""), \
            (self.process.returncode, said[0], said[1].decode())
        assert not self.path or not os.path.lexists(self.path), "the socket is left"

    def __exit__(self, kind, *_):
        super().__exit__(kind)
        if self.process.returncode is None:
            self.stop()


class Peer(Server):
    """Another server of the same protocol, for figures beside: PEERS names them."""

    def __init__(self, name, path, connections):
        # pylint: disable=super-init-not-called
        Server.count += 1
        self.path = self.address = os.path.join(ROOT, f"s{Server.count}")
        needs(name)
        arguments = {
            "qemu-nbd": ["-f", "raw", "-t", "-e", str(connections), "-k", self.path, path],
            "nbdkit": ["-f", "-U", self.path, "file", path],
        }[name]
        self.process = subprocess.Popen(
            [name, *arguments], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: os.path.exists(self.path) or self.process.poll() is not None)

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


PEERS = ("qemu-nbd", "nbdkit")


# ---- clients ------------------------------------------------------------------


def pack_option(option, data=b"", length=None):
    return struct.pack(">QII", OPTION_MAGIC, option,
                       len(data) if length is None else length) + data


def pack_name(name, infos=()):
    """The data of INFO and GO."""
    return struct.pack(">I", len(name)) + name + \
        struct.pack(f">H{len(infos)}H", len(infos), *infos)


def pack_queries(name, queries):
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries)) + \
        b"".join(struct.pack(">I", len(query)) + query for query in queries)


def pack_request(command, offset=0, length=0, flags=0, handle=0, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, handle, offset, length)


class Reply:
    def __init__(self, handle):
        self.handle = handle
        self.error = 0
        self.chunks = []  # (type, offset, length)
        self.data = None
        self.extents = []  # (length, flags)


class Client:
    """A socket, with a byte at a time where that is wanted."""

    def __init__(self, address, receive_buffer=None, send_buffer=None):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        for option, size in ((socket.SO_RCVBUF, receive_buffer), (socket.SO_SNDBUF, send_buffer)):
            if size:
                self.socket.setsockopt(socket.SOL_SOCKET, option, size)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self.file = self.socket.makefile("rb")
        self.handle = 0
        self.asked = {}  # handle: Reply, command, offset, length
        self.structured = False
        self.size = self.flags = None

    def take(self, length):
        try:
            data = self.file.read(length)
        except ConnectionError as error:
            raise Gone from error
        if len(data) < length:
            raise Gone(len(data))
        return data

    def unpack(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def send_bytes(self, data):
        try:
            self.socket.sendall(data)
        except ConnectionError as error:
            raise Gone from error

    def silent(self, seconds):
        return not select.select([self.socket], [], [], seconds)[0]

    def closed(self):
        """Waits for the end: whether that is all that comes."""
        try:
            return self.file.read(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.file.close()
        self.socket.close()

    def reset(self):
        """As one that dies: what was sent to it is lost."""
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    # ---- handshake

    def greet(self, flags=FIXED_NEWSTYLE | NO_ZEROES):
        assert self.take(16) == GREETING
        assert self.unpack(">H") == (FIXED_NEWSTYLE | NO_ZEROES,)
        self.send_bytes(struct.pack(">I", flags))
        self.client_flags = flags
        return self

    def send_option(self, option, data=b""):
        self.send_bytes(pack_option(option, data))

    def option_reply(self, option):
        magic, echo, kind, length = self.unpack(">QIII")
        assert (magic, echo) == (OPTION_REPLY_MAGIC, option), (hex(magic), echo)
        assert length <= MIB, length
        return kind, self.take(length)

    def option(self, option, data=b""):
        """All its answers: (type, data)."""
        self.send_option(option, data)
        replies = [self.option_reply(option)]
        while replies[-1][0] != REP_ACK and not replies[-1][0] >> 31:
            replies.append(self.option_reply(option))
        return replies

    def refused(self, option, data=b""):
        """The error of it."""
        (kind, message), = self.option(option, data)
        message.decode()
        return kind

    def go(self, name=b"", structured=True, contexts=()):
        if structured:
            assert self.option(STRUCTURED_REPLY) == [(REP_ACK, b"")]
            self.structured = True
        if contexts:
            replies = self.option(SET_META_CONTEXT, pack_queries(name, contexts))
            assert len(replies) == len(contexts) + 1, replies
        replies = self.option(GO, pack_name(name))
        assert replies[-1] == (REP_ACK, b""), replies
        self.learn(replies)
        return self

    def learn(self, replies):
        infos = {data[:2]: data[2:] for kind, data in replies if kind == REP_INFO}
        self.size, self.flags = struct.unpack(">QH", infos[b"\0\0"])

    def export_name(self, name=b""):
        self.send_option(EXPORT_NAME, name)
        self.size, self.flags = self.unpack(">QH")
        if not self.client_flags & NO_ZEROES:
            assert self.take(124) == bytes(124)
        return self

    # ---- transmission

    def request(self, command, offset=0, length=0, flags=0):
        """The bytes of it, and as what it was noted."""
        self.handle += 1
        self.asked[self.handle] = Reply(self.handle), command, offset, length
        return pack_request(command, offset, length, flags, self.handle)

    def send(self, command, offset=0, length=0, flags=0, payload=b""):
        self.send_bytes(self.request(command, offset, length, flags) + payload)
        return self.handle

    def reply(self):
        """The next that is whole."""
        while True:
            magic, = self.unpack(">I")
            if magic == SIMPLE_MAGIC:
                return self.simple_reply()
            assert magic == STRUCTURED_MAGIC and self.structured, hex(magic)
            flags, kind, handle, length = self.unpack(">HHQI")
            assert length <= 64 * MIB, length
            reply = self.structured_chunk(kind, handle, length)
            if flags & 1:
                del self.asked[handle]
                self.check_whole(reply)
                return reply

    def simple_reply(self):
        error, handle = self.unpack(">IQ")
        reply, command, _, length = self.asked.pop(handle)
        assert not self.structured or command != READ, "a simple reply to a read"
        reply.error = error
        if command == READ and not error:
            reply.data = self.take(length)
        return reply

    def structured_chunk(self, kind, handle, length):
        reply, command, offset, asked = self.asked[handle]
        if kind == CHUNK_NONE:
            assert length == 0
        elif kind == CHUNK_DATA:
            at, = self.unpack(">Q")
            self.place(reply, command, at - offset, asked, self.take(length - 8))
            reply.chunks.append((kind, at, length - 8))
        elif kind == CHUNK_HOLE:
            at, size = self.unpack(">QI")
            assert length == 12 and size, (length, size)
            self.place(reply, command, at - offset, asked, bytes(size))
            reply.chunks.append((kind, at, size))
        elif kind == CHUNK_STATUS:
            assert command == BLOCK_STATUS and length % 8 == 4 and length > 4, (command, length)
            words = self.unpack(f">{length // 4}I")
            reply.extents += zip(words[1::2], words[2::2])
        else:
            assert kind in (CHUNK_ERROR, CHUNK_ERROR_OFFSET), hex(kind)
            reply.error, text = self.unpack(">IH")
            assert length == 6 + text + (8 if kind == CHUNK_ERROR_OFFSET else 0), (length, text)
            self.take(text).decode()
            if kind == CHUNK_ERROR_OFFSET:
                at, = self.unpack(">Q")
                assert offset <= at < offset + asked, at
            assert reply.error
        return reply

    def place(self, reply, command, at, asked, data):
        assert command == READ and 0 <= at and at + len(data) <= asked and data
        if reply.data is None:
            reply.data = bytearray(asked)
            reply.come = 0
        reply.data[at:at + len(data)] = data
        reply.come += len(data)

    @staticmethod
    def check_whole(reply):
        if reply.data is not None and not reply.error:
            assert reply.come == len(reply.data), "not every byte once"
        if reply.error:
            reply.data = None

    def ask(self, *arguments, **options):
        handle = self.send(*arguments, **options)
        reply = self.reply()
        assert reply.handle == handle
        return reply

    def read(self, offset, length, flags=0):
        reply = self.ask(READ, offset, length, flags)
        assert not reply.error, reply.error
        return bytes(reply.data)

    def write(self, offset, data, flags=0):
        error = self.ask(WRITE, offset, len(data), flags, data).error
        assert not error, error

    def do(self, command, offset=0, length=0, flags=0):
        error = self.ask(command, offset, length, flags).error
        assert not error, (command, error)

    def error(self, command, offset=0, length=0, flags=0, payload=b""):
        return self.ask(command, offset, length, flags, payload).error

    def disconnect(self):
        self.send(DISC)
        return self.closed()


# ---- files --------------------------------------------------------------------


def in_root(name):
    return os.path.join(ROOT, name)


def make(name, content):
    """A file of the bytes, or of as many random ones: its path and its content."""
    if isinstance(content, int):
        content = os.urandom(content)
    path = in_root(name)
    with open(path, "wb") as file:
        file.write(content)
    return path, content


def content_of(path):
    with open(path, "rb") as file:
        return file.read()


# ---- the whole ------------------------------------------------------------------


def run(tests):
    """Ends what they leave behind."""
    try:
        return tap.run(tests)
    finally:
        subprocess.run(["rm", "-rf", ROOT], check=True)
