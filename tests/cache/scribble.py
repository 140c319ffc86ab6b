#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scribble.py FILE REFERENCE SEED COUNT: random changes of FILE (a mounted disk.img) at any alignment,
each made in REFERENCE too: writes, zeroed and punched ranges, a flush now and then. Every write is
acknowledged when it ends; nothing is flushed at the end."""
import ctypes
import os
import random
import sys

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def main():
    path, reference, seed, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    dice = random.Random(seed)
    disk = os.open(path, os.O_RDWR)
    copy = os.open(reference, os.O_RDWR)
    size = os.fstat(disk).st_size
    for _ in range(count):
        length = dice.choice((1, 511, 512, 4095, 4096, 4097, 65536, 262144))
        length = min(size, dice.randint(1, length) if dice.random() < 0.5 else length)
        offset = dice.randint(0, size - length)
        kind = dice.random()
        if kind < 0.5:
            offset -= offset % 4096
        if kind < 0.8:
            data = dice.randbytes(length)
            os.pwrite(disk, data, offset)
            os.pwrite(copy, data, offset)
        elif kind < 0.9:
            fallocate(disk, dice.choice((ZERO_RANGE, PUNCH_HOLE)) | KEEP_SIZE, offset, length)
            os.pwrite(copy, bytes(length), offset)
        else:
            os.fsync(disk)


main()
