#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""spoil.py DIR payload|header|segment SEED: damage a cache directory as a rotten disk would: one payload slot of
a dirty block, or the header of a batch that holds dirty data, has later ones behind it and stands in a
segment without a footer, or the header of a sealed segment with dirty data. Exit 1 if there is nothing of
that kind."""
import os
import random
import sys

from reader import BLOCK, DATA, LOG, Cache


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
            if batch and any(r.kind in DATA and r.seq > cache.watermark for r in batch[1]):
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
    elif sys.argv[2] == "segment":
        sealed = [s for s in {r.segment for r in cache.dirty.values()} if s.slot(cache.identity.slots - 1)[:8] == b"NBTRAIL1"]
        if not sealed:
            sys.exit("no sealed segment")
        flip(cache, min(sealed, key=lambda s: s.number), 0)
    else:
        places = list(headers(cache))
        if not places:
            sys.exit("no batch to spoil")
        flip(cache, *dice.choice(places))


main()
