#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Was every acknowledged write kept?

acked.py make FILE SECTORS  fills FILE with generation 0
writer FILE LOG SEED LANES  (a C program) writes until a write fails
acked.py check FILE LOG     compares; what is seen counts as acknowledged from then on

Each sector of 512 bytes holds its number and the generation of the write that put it there, 32 times.
LOG has a line before each write ("b GENERATION FIRST COUNT") and one after ("a GENERATION"). The
writes of one sector have an order. A sector is right if it has the newest acknowledged generation, or
a newer one that was begun and never acknowledged."""
import array
import struct
import sys

SECTOR = 512
PAIR = struct.Struct("<QQ")
COPIES = SECTOR // PAIR.size


def content(first, count, generation):
    return b"".join(PAIR.pack(s, generation) * COPIES for s in range(first, first + count))


class State:
    """What a log says: per sector the newest acknowledged generation, and who may be newer."""

    def __init__(self, sectors, log):
        self.floor = array.array("Q", bytes(8 * sectors))
        self.begun = {}
        self.last = self.acked = 0
        try:
            lines = open(log)
        except FileNotFoundError:
            return
        with lines:
            for line in lines:
                kind, *numbers = line.split()
                numbers = [int(n) for n in numbers]
                if kind == "b":
                    self.begun[numbers[0]] = numbers[1:]
                    self.last = max(self.last, numbers[0])
                elif kind == "a":
                    self.acked += 1
                    self.set(numbers[0], *self.begun.pop(numbers[0]))
                elif kind == "s":
                    self.set(*numbers)
                elif kind == "c":
                    self.begun.clear()

    def set(self, generation, first, count):
        for sector in range(first, first + count):
            self.floor[sector] = max(self.floor[sector], generation)


def make(path, sectors):
    with open(path, "wb") as file:
        for first in range(0, sectors, 4096):
            file.write(content(first, min(4096, sectors - first), 0))


def seen(data, sector):
    """The generation of the sector; -1 where it is no sector of ours."""
    text = data[sector * SECTOR:(sector + 1) * SECTOR]
    number, generation = PAIR.unpack_from(text)
    return generation if number == sector and text == text[:PAIR.size] * COPIES else -1


def check(path, log):
    with open(path, "rb") as file:
        data = file.read()
    sectors = len(data) // SECTOR
    state = State(sectors, log)
    newer = {}
    for generation, (first, count) in state.begun.items():
        for sector in range(first, first + count):
            newer.setdefault(sector, set()).add(generation)
    bad = 0
    lines = []
    for sector in range(sectors):
        floor = state.floor[sector]
        if data.startswith(PAIR.pack(sector, floor) * COPIES, sector * SECTOR):
            continue
        generation = seen(data, sector)
        if generation > floor and generation in newer.get(sector, ()):
            lines.append("s %d %d 1\n" % (generation, sector))
            continue
        bad += 1
        if bad <= 10:
            print("sector %d: generation %d was acknowledged, %s is there" %
                  (sector, floor, generation if generation >= 0 else "something else"))
    if bad:
        sys.exit("%s: %d sectors are wrong" % (path, bad))
    with open(log, "a") as out:
        out.writelines(lines + ["c\n"])
    print("%d writes acknowledged; of %d others %d sectors are there" %
          (state.acked, len(state.begun), len(lines)))


command, *rest = sys.argv[1:]
if command == "make":
    make(rest[0], int(rest[1]))
elif command == "check":
    check(rest[0], rest[1])
else:
    sys.exit(__doc__)
