"""The orders to the file system of faulty_fs.c, which faulty.sh mounts as "fuse". Not a test."""
import os
import select
import socket

from tap import PATIENCE

SOCKET = os.environ.get("ONEFD_FAULTY_SOCKET")  # None: not started by faulty.sh


class Disk:
    def __init__(self, path=SOCKET):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.news = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()  # which is a release

    def order(self, *words):
        """The number that is answered."""
        self.socket.send(" ".join(map(str, words)).encode())
        while not (said := self.socket.recv(64).decode()).startswith("ok "):
            self.hear(said)
        return int(said[3:])

    def hear(self, said):
        assert said.startswith("held "), said
        self.news.append(said)

    def wait_held(self, count=1):
        while len(self.news) < count:
            self.hear(self.socket.recv(64).decode())

    def held(self, seconds):
        return bool(self.news or select.select([self.socket], [], [], seconds)[0])


def directory():
    """Where it is mounted."""
    return os.environ["ONEFD_TEST_DIRS"].split(":")[1]
