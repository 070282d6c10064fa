"""Which pages of a file are in memory. Not a test."""
import ctypes
import mmap
import os

from tap import until


def forget(path):
    """The next reads of the file are the disk's again. Pages that are being read stay for now."""
    def dropped():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return count_resident(path) == 0

    until(dropped)


def count_resident(path):
    with open(path, "rb") as file, \
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        byte = ctypes.c_char.from_buffer(view)
        pages = (ctypes.c_ubyte * -(-len(view) // mmap.PAGESIZE))()
        failed = ctypes.CDLL(None).mincore(
            ctypes.c_void_p(ctypes.addressof(byte)), ctypes.c_size_t(len(view)), pages)
        del byte  # or the view cannot be closed
    assert not failed
    return sum(page & 1 for page in pages)
