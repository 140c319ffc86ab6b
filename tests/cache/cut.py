#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The parts of power-cut.sh and far-order.sh that are not shell.

cut.py write DISK ROOT SEED COUNT      write to DISK; marks go to the recorder mounted at ROOT
cut.py check DISK SEED COUNT LOW [HIGH] DISK must be the state after write LOW, or a later one (up to HIGH);
                                       prints which
cut.py far DISK SEED COUNT             DISK must be the state at some flush, with any part of what was
                                       written up to the next one; prints how many flushes
cut.py floor LIST CUT                  the last write flushed, and the last acknowledged, before record CUT
cut.py points LIST SEED N              N records to cut behind: after every flush in turn, and anywhere
cut.py mark ROOT TEXT                  a mark into the recording
cut.py copy FROM TO                    copy a tree into TO, all of it synced; then mark the recorder TO

Write k of a seed is always the same: an odd range of sectors, each saying k and its own number, or zeroes."""
import mmap
import os
import random
import struct
import sys

SECTOR = 512
PAIR = struct.Struct("<QQ")
COPIES = SECTOR // PAIR.size


def stamp(k, sector):
    return PAIR.pack(k, sector) * COPIES


def writes(seed, count, sectors):
    """(k, first sector, sectors, zero?)"""
    dice = random.Random(seed)
    for k in range(1, count + 1):
        n = dice.choice((1, 3, 7, 8, 16, 64, 200))
        if dice.random() < 0.5:
            first = dice.randint(0, sectors - n)
        else:
            first = dice.randint(0, (sectors - n) // 8) * 8
        yield k, first, n, dice.random() < 0.1


def flushes(seed, count):
    """Behind which writes there is one. The last are never flushed: they are for kill -9 and recovery."""
    dice = random.Random("flush " + seed)
    return {k for k in range(1, count - 29) if dice.random() < 0.05}


def write(disk, root, seed, count):
    # Direct: the kernel cuts a buffered write at the first page boundary, and each part is a write then.
    fd = os.open(disk, os.O_RDWR | os.O_DIRECT)
    buf = mmap.mmap(-1, 1 << 20)
    sectors = os.fstat(fd).st_size // SECTOR
    flushed = flushes(seed, int(count))
    for k, first, n, zero in writes(seed, int(count), sectors):
        data = bytes(n * SECTOR) if zero else b"".join(stamp(k, s) for s in range(first, first + n))
        buf[: len(data)] = data
        if os.pwrite(fd, memoryview(buf)[: len(data)], first * SECTOR) != len(data):
            sys.exit("a short write")
        mark(root, "acked %d" % k)
        if k in flushed:
            os.fsync(fd)
            mark(root, "flushed %d" % k)


def seen(disk):
    """The write that each sector is of: 0 for zeroes, -1 for what nobody wrote."""
    with open(disk, "rb") as f:
        raw = f.read()
    out = []
    for s in range(len(raw) // SECTOR):
        sector = raw[s * SECTOR : (s + 1) * SECTOR]
        k = PAIR.unpack_from(sector)[0]
        out.append(k if sector == (stamp(k, s) if k else bytes(SECTOR)) else -1)
    return out


def check(disk, seed, count, low, high=None):
    got = seen(disk)
    low, high = int(low), int(high or count)
    want = [0] * len(got)
    wrong = sum(g != 0 for g in got)
    if low == 0 and wrong == 0:
        print(0)
        return
    for k, first, n, zero in writes(seed, int(count), len(got)):
        for s in range(first, first + n):
            wrong -= want[s] != got[s]
            want[s] = 0 if zero else k
            wrong += want[s] != got[s]
        if low <= k <= high and wrong == 0:
            print(k)
            return
    sys.exit("no state from write %d to %d looks like this; newest sector seen is of write %d, %d are of none" %
             (low, high, max(got), got.count(-1)))


def far(disk, seed, count):
    got = seen(disk)
    flushed = flushes(seed, int(count))
    base, now = [0] * len(got), {}  # at the last flush; sector → what it held, then and since
    wrong = sum(g != 0 for g in got)  # sectors that neither of the two explains
    epochs, best = 0, len(got)
    for k, first, n, zero in writes(seed, int(count), len(got)):
        for s in range(first, first + n):
            held = now.setdefault(s, [base[s]])
            wrong -= got[s] not in held
            held.append(0 if zero else k)
            wrong += got[s] not in held
        best = min(best, wrong)
        if wrong == 0:
            print(epochs)
            return
        if k in flushed:
            for s, held in now.items():
                wrong += (got[s] != held[-1]) - (got[s] not in held)
                base[s] = held[-1]
            epochs, now = epochs + 1, {}
    sys.exit("no flush explains this: at best %d sectors are wrong" % best)


def marks(path):
    with open(path) as f:
        for line in f:
            number, kind, rest = line.split(" ", 2)
            yield int(number), rest.split()[2:] if kind == "mark" else None


def floor(path, cut):
    last = {"flushed": 0, "acked": 0}
    for number, text in marks(path):
        if number <= int(cut) and text:
            last[text[0]] = int(text[1])
    print(last["flushed"], last["acked"])


def points(path, seed, n):
    dice = random.Random("points " + seed)
    after, total = [], 0
    for total, text in marks(path):
        if text and text[0] == "flushed":
            after.append(total)
    if not after:
        sys.exit("nothing was flushed: no mark to cut at")
    print(after[-1])
    every = []
    for i in range(1, int(n)):
        # Each of them once before one comes again.
        every = every or dice.sample(after, len(after))
        print(every.pop() + dice.randint(0, 3) if i % 5 else dice.randint(after[0] // 2, total))


def copy(source, target):
    for name in sorted(os.listdir(source)):
        old, new = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(old):
            os.mkdir(new, 0o700)
            copy(old, new)
            continue
        with open(old, "rb") as f, open(new, "wb") as out:
            while chunk := f.read(1 << 20):
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def copy_and_mark(source, root):
    copy(source, root)
    mark(root, "copied 0")


def mark(root, text):
    os.setxattr(root, "user.mark", text.encode())


if __name__ == "__main__":
    {"write": write, "check": check, "far": far, "floor": floor, "points": points,
     "mark": mark, "copy": copy_and_mark}[sys.argv[1]](*sys.argv[2:])
