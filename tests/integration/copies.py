#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The parts of far-copies.sh that are not shell: a guest that flushes all the time, and what a copy of the
far side may be.

copies.py guest DISK FS SEED STOP     turns until the file STOP is there
copies.py raw COPY SEED STATE         names the flush that explains the region in front of the file system:
                                      prints its turn, blocks of the next one that are there too, and a
                                      digest of the copy; STATE holds what the last call knew
copies.py fs FS SEED TURN PART        the file system, its journal replayed, belongs to that

Turn k of a seed is always the same: some blocks of the region, each saying k and its own number, then a
flush of the disk; a file made, flushed and renamed, the one of KEEP turns ago removed, k appended to
the file `log', and a flush of that. Nothing of a turn begins before the flushes of the turn before ended. So:
a block of turn k proves all of turn k-1, the file system's part too; and the file system at k proves the
blocks of turn k."""
import hashlib
import mmap
import os
import pickle
import random
import struct
import sys

BLOCK = 4096
REGION = 1024  # blocks
PAIR = struct.Struct("<QQ")
KEEP = 20


def stamp(k, block):
    return PAIR.pack(k, block) * (BLOCK // PAIR.size)


def blocks(seed, k):
    dice = random.Random("%s %d" % (seed, k))
    return sorted({dice.randrange(REGION) for _ in range(dice.choice((1, 2, 5, 20)))})


def contents(seed, k):
    dice = random.Random("file %s %d" % (seed, k))
    return PAIR.pack(k, k) + dice.randbytes(dice.choice((0, 100, 5000, 40000)))


def guest(disk, fs, seed, stop):
    raw = os.open(disk, os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, BLOCK)
    log = os.open(os.path.join(fs, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    k = 0
    while not os.path.exists(stop):
        k += 1
        for block in blocks(seed, k):
            page[:] = stamp(k, block)
            os.pwrite(raw, page, block * BLOCK)
        os.fsync(raw)
        name = os.path.join(fs, "d%d" % (k % 3), "f%d" % k)
        os.makedirs(os.path.dirname(name), exist_ok=True)
        file = os.open(name + ".new", os.O_WRONLY | os.O_CREAT)
        os.write(file, contents(seed, k))
        os.fsync(file)
        os.close(file)
        os.rename(name + ".new", name)
        if k > KEEP:
            os.unlink(os.path.join(fs, "d%d" % ((k - KEEP) % 3), "f%d" % (k - KEEP)))
        os.write(log, PAIR.pack(k, ~k & 0xFFFFFFFFFFFFFFFF))
        os.fsync(log)
    print("%d turns" % k)


def digest(file):
    state, at = hashlib.blake2b(digest_size=8), 0
    size = os.fstat(file).st_size
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(file, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(file, min(end - at, 1 << 20), at)
            if data.count(0) != len(data):
                state.update(b"%d" % at + data)
            at += len(data)
    return state.hexdigest()


def raw(copy, seed, state_path):
    file = os.open(copy, os.O_RDONLY)
    region = os.pread(file, REGION * BLOCK, 0)
    got = []
    for block in range(REGION):
        data = region[block * BLOCK:(block + 1) * BLOCK]
        k = PAIR.unpack_from(data)[0]
        got.append(k if data == (stamp(k, block) if k else bytes(BLOCK)) else -1)
    try:
        with open(state_path, "rb") as f:
            turn, base = pickle.load(f)
    except FileNotFoundError:
        turn, base = 0, [0] * REGION
    newest = max(got)
    last = turn
    while turn < newest and (turn + 1 < newest or all(got[b] == newest for b in blocks(seed, newest))):
        turn += 1
        for block in blocks(seed, turn):
            base[block] = turn
    part = [b for b in blocks(seed, turn + 1) if got[b] == turn + 1]
    wrong = [b for b in range(REGION) if got[b] != base[b] and b not in part]
    if wrong:
        sys.exit("no flush explains this: newest turn %d, an earlier copy had %d; block %d has %d, not %d; %d like it" %
                 (newest, last, wrong[0], got[wrong[0]], base[wrong[0]], len(wrong)))
    with open(state_path, "wb") as f:
        pickle.dump((turn, base), f)
    print(turn, len(part), digest(file))


def fs(path, seed, turn, part):
    turn, part = int(turn), int(part)
    data = b""
    try:
        with open(os.path.join(path, "log"), "rb") as f:
            data = f.read()
    except FileNotFoundError:
        pass
    last = len(data) // PAIR.size
    want = b"".join(PAIR.pack(k, ~k & 0xFFFFFFFFFFFFFFFF) for k in range(1, last + 1))
    if data != want:
        sys.exit("the log of the file system is not what was written")
    # A record that was begun and not flushed may be there.
    if not max(turn - 1 + (part > 0), 0) <= last <= turn:
        sys.exit("the region is at turn %d with %d blocks of the next, the file system at %d" % (turn, part, last))
    there = set()
    for folder, _, names in os.walk(path):
        for name in names:
            if name[0] != "f" or name.endswith(".new"):
                continue
            k = int(name[1:])
            there.add(k)
            with open(os.path.join(folder, name), "rb") as f:
                if f.read() != contents(seed, k):
                    sys.exit("file %d has wrong contents" % k)
    gone = set(range(max(last + 1 - KEEP + 1, 1), last + 1)) - there
    if gone:
        sys.exit("files that were flushed are gone: %s" % sorted(gone))


if __name__ == "__main__":
    {"guest": guest, "raw": raw, "fs": fs}[sys.argv[1]](*sys.argv[2:])
