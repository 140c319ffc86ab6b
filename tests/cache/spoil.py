#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""spoil.py DIR WHAT SEED: damage a cache directory as a rotten disk would.

    payload   one payload slot of a dirty block
    header    the header of a batch that holds dirty payload, has later ones behind it and stands in a segment
              without a footer
    segment   the header of a segment with dirty data and a footer
    open      the same without a footer
    newest    the newest segment of the log is gone

Exit 1 if there is nothing of that kind."""
import os
import random
import sys

from reader import BLOCK, LOG, WRITE, Cache


def flip(cache, segment, slot):
    path = segment.file.name
    with open(path, "r+b") as f:
        f.seek(slot * BLOCK + 100)
        byte = f.read(1)[0]
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte ^ 0x10]))


def headers(cache):
    for s in cache.segments:
        if s.kind != LOG or s.footer():
            continue
        at, found = 1, []
        while at < cache.identity.slots:
            batch = s.batch(at)
            if batch and any(r.kind == WRITE and r.seq > cache.watermark for r in batch[1]):
                found.append(at)
            at += batch[0] if batch else 1
        yield from ((s, at) for at in found[:-1])


def main():
    cache = Cache(sys.argv[1])
    dice = random.Random(sys.argv[3])
    if sys.argv[2] == "payload":
        blocks = [(b, r) for b, r in cache.dirty.items() if r.payload]
        if not blocks:
            sys.exit("no dirty block")
        blk, r = dice.choice(blocks)
        flip(cache, r.segment, r.slot + blk - r.blk)
    elif sys.argv[2] in ("segment", "open"):
        found = [s for s in {r.segment for r in cache.dirty.values()} if s.footer() == (sys.argv[2] == "segment")]
        if not found:
            sys.exit("no such segment")
        flip(cache, min(found, key=lambda s: s.number), 0)
    elif sys.argv[2] == "newest":
        os.unlink(max((r.seq, r.segment.file.name) for r in cache.log)[1])
    else:
        places = list(headers(cache))
        if not places:
            sys.exit("no batch to spoil")
        flip(cache, *dice.choice(places))


main()
