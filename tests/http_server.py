"""What the tests of onefd-httpd share: a server that is started and asked for its counters, and
a client that sees every byte."""
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import threading

from tap import PATIENCE, until

TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """@options are words of its command line; @popen of subprocess.Popen."""

    def __init__(self, program, root, *options, listen="127.0.0.1:0", runner=(), drain=True, **popen):
        self.process = subprocess.Popen(
            [*runner, program, f"--listen={listen}", f"--root={root}", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **popen)
        line = read_line(self.process.stdout).decode()
        if not line.startswith("listening on "):
            self.process.kill()
            raise AssertionError(line + self.process.communicate()[1].decode())
        self.host, port = line.split()[-1].rsplit(":", 1)
        self.host = self.host.strip("[]")
        self.port = int(port)
        self.log = []
        if drain:  # or a log on stdout would end in a pipe that nobody reads
            self.reader = threading.Thread(target=self.read_log, daemon=True)
            self.reader.start()

    def read_log(self):
        for line in self.process.stdout:
            self.log.append(line)

    def connect(self, **options):
        return Client(self.port, self.host, **options)

    def get(self, path, *headers, **options):
        with self.connect() as client:
            return client.get(path, *headers, **options)

    # ---- what it says of itself, and the kernel of it

    def counters(self, workers=1):
        """Of each worker, its line; of a single one, that."""
        self.process.send_signal(signal.SIGUSR1)
        lines = [read_line(self.process.stderr).decode() for _ in range(workers)]
        for line in lines:
            assert re.fullmatch(r"connections=\d+ requests=\d+ pending=\d+ bytes=\d+\n", line), line
        said = [{name: int(value) for name, value in (word.split("=") for word in line.split())}
                for line in lines]
        return said if workers > 1 else said[0]

    def wait_for(self, **values):
        """Until its counters are so."""
        until(lambda: values.items() <= self.counters().items())

    def wait_idle(self, connections=0):
        self.wait_for(connections=connections, requests=0, pending=0, bytes=0)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def cpu(self):
        """Seconds of processor time that it has used, in ticks of 10 ms."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            words = file.read().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICK

    def children(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                  encoding="ascii") as file:
            return {int(pid) for pid in file.read().split()}

    def allow_descriptors(self, more):
        """So many of the lowest numbers that are free."""
        fds = {int(fd) for fd in os.listdir(f"/proc/{self.process.pid}/fd")}
        limit = sorted(set(range(len(fds) + more + 1)) - fds)[more]
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (limit, limit))

    # ---- its end

    def stop(self, signo=signal.SIGTERM):
        self.process.send_signal(signo)
        self.gone()

    def gone(self):
        self.process.wait(timeout=PATIENCE)
        said = self.process.stderr.read()
        assert (self.process.returncode, said) == (0, b""), (self.process.returncode, said)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            if self.process.poll() is None:
                # In order, so that its workers go, too.
                self.process.terminate()
                try:
                    self.process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
            # What else holds its end of the pipe would not let it end.
            os.set_blocking(self.process.stderr.fileno(), False)
            print(f"# it said: {self.process.stderr.read()!r}")
        elif self.process.returncode is None:
            self.stop()
        self.process.stdout.close()
        self.process.stderr.close()


def read_line(file):
    """A line that comes in time, of a file without a buffer."""
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([file], [], [], PATIENCE)[0], f"no line: {line!r}"
        byte = file.read(1)
        if not byte:
            break
        line += byte
    return line


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __getitem__(self, name):
        """A header that is there once."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:100]!r} ({len(self.body)} bytes)"


class Client:
    def __init__(self, port, host="127.0.0.1", receive_buffer=None, source=None):
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(PATIENCE)
        self.socket.connect((host, port))
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, path, *headers, method="GET", version="1.1"):
        self.send(request(path, *headers, method=method, version=version))

    def head(self):
        """The status and the headers of the next answer."""
        line = self.file.readline()
        match = re.fullmatch(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n", line)
        if not match:
            raise ConnectionError(f"no status line: {line!r}")
        headers = []
        while (line := self.file.readline()) != b"\r\n":
            name, colon, value = line.partition(b":")
            assert colon and value.endswith(b"\r\n"), line
            headers.append((name.decode().lower(), value.strip().decode("latin-1")))
        return int(match[1]), headers

    def answer(self, method="GET"):
        """The next answer, all of it."""
        status, headers = self.head()
        while status < 200:
            status, headers = self.head()
        answer = Answer(status, headers, b"")
        if method == "HEAD" or status in (204, 304):
            return answer
        if answer["Transfer-Encoding"] is None and answer["Content-Length"] is not None:
            length = int(answer["Content-Length"])
            answer.body = self.file.read(length)
            assert len(answer.body) == length, f"{len(answer.body)} of {length} bytes"
        elif answer["Transfer-Encoding"] is None:
            answer.body = self.file.read()
        else:
            while size := int(self.file.readline(), 16):
                answer.body += self.file.read(size)
                assert self.file.readline() == b"\r\n"
            assert self.file.readline() == b"\r\n"
        return answer

    def get(self, path, *headers, method="GET", version="1.1"):
        self.ask(path, *headers, method=method, version=version)
        return self.answer(method)

    def ended(self):
        """Whether there is nothing more but the end, which is waited for."""
        try:
            return self.file.read(1) == b""
        except ConnectionError:
            return True

    def silent(self, seconds=0):
        return not select.select([self.socket], [], [], seconds)[0]

    def reset(self):
        """Goes without a word, and without a port that stays taken."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def request(path, *headers, method="GET", version="1.1"):
    path = path if isinstance(path, bytes) else path.encode()
    host = (b"Host: localhost",) if version == "1.1" else ()
    lines = [h if isinstance(h, bytes) else h.encode() for h in headers]
    return b"\r\n".join((b"%b %b HTTP/%b" % (method.encode(), path, version.encode()),
                         *host, *lines, b"", b""))
