#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The parts of flips.sh that are not shell.

flip.py places DIR FILE         note in FILE what stands where in the cache directory DIR
flip.py flip DIR FILE SEED N    change one bit of a copy of that directory; kind of place N, then N + 1 ..., where
                                there are none of a kind; prints what
flip.py near DISK SEED COUNT    each block of DISK is as after all writes of cut.py, or cannot be read; prints how
                                many cannot"""
import json
import os
import random
import sys

import cut
from reader import BARRIER, BLOCK, CUT, DATA, WATERMARK, Cache

KINDS = ("payload", "batch", "barrier", "watermark", "segment", "trailer", "table", "leftover", "filled", "store",
         "identity", "run", "wal", "sst", "rocksdb")


def places(directory, out):
    found = {kind: [] for kind in KINDS}
    cache = Cache(directory)

    def note(kind, name, offset, length):
        if length:
            found[kind].append((name, offset, length))

    for s in cache.segments:
        name, slots, at = os.path.basename(s.file.name), cache.identity.slots, 1
        log = s.kind == 1
        note("segment", name, 0, BLOCK)
        while batch := at < slots and s.batch(at):
            kinds = {r.kind for r in batch[1]}
            kind = ("batch" if kinds & set(DATA) else "barrier" if kinds & {BARRIER, CUT} else
                    "watermark" if WATERMARK in kinds else "store")
            note(kind, name, at * BLOCK, BLOCK)
            note("payload" if log else "filled", name, (at + 1) * BLOCK, (batch[0] - 1) * BLOCK)
            at += batch[0]
        if s.footer():
            note("trailer", name, (slots - 1) * BLOCK, BLOCK)
            note("table", name, (slots - 2) * BLOCK, BLOCK)
            slots -= 2
        if at < slots:
            note("leftover", name, at * BLOCK, (slots - at) * BLOCK)
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            size, short = os.path.getsize(path), os.path.relpath(path, directory)
            if name.startswith("identity."):
                note("identity", short, 0, size)
            elif name == "run":
                note("run", short, 0, 112)
            elif folder != directory:
                note("wal" if name.endswith(".log") else "sst" if name.endswith(".sst") else "rocksdb", short, 0, size)
    with open(out, "w") as f:
        json.dump(found, f)


def flip(directory, notes, seed, n):
    with open(notes) as f:
        found = json.load(f)
    dice = random.Random("%s %s" % (seed, n))
    n = int(n)
    while not found[KINDS[n % len(KINDS)]]:
        n += 1
    kind = KINDS[n % len(KINDS)]
    name, offset, length = dice.choice(found[kind])
    # Headers are short, and the rest of their slot is zero and covered: every other flip is in front.
    at = offset + dice.randrange(length if dice.random() < 0.5 else min(length, 256))
    bit = 1 << dice.randrange(8)
    with open(os.path.join(directory, name), "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ bit]))
    print("%s: %s at %d, %#x" % (kind, name, at, bit))


def near(disk, seed, count):
    fd = os.open(disk, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    size = os.fstat(fd).st_size
    want = [0] * (size // cut.SECTOR)
    for k, first, n, zero in cut.writes(seed, int(count), len(want)):
        want[first:first + n] = [0 if zero else k] * n
    lost = 0
    for at in range(0, size, BLOCK):
        try:
            got = os.pread(fd, BLOCK, at)
        except OSError:
            lost += 1
            continue
        first = at // cut.SECTOR
        right = b"".join(cut.stamp(want[s], s) if want[s] else bytes(cut.SECTOR)
                         for s in range(first, first + len(got) // cut.SECTOR))
        if got != right:
            sys.exit("the block at %d is wrong" % at)
    print(lost)


if __name__ == "__main__":
    {"places": places, "flip": flip, "near": near}[sys.argv[1]](*sys.argv[2:])
