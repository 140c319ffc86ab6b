#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of cache directories, written from docs/FORMAT.md and from nothing else.

    reader.py DIR                   what is in it, as JSON
    reader.py DIR --compare FAR REFERENCE
                                    exit 1 unless FAR with the dirty blocks laid over it is REFERENCE
                                    and what counts as clean is what FAR holds
    reader.py DIR --overlay FAR     write the dirty blocks into FAR

It shares no code with the program, so that the two check each other. No daemon may run on DIR.
"""

import argparse
import bisect
import json
import os
import re
import struct
import sys

BLOCK = 4096
LOG, CLEAN = 1, 2
WRITE, ZERO, DISCARD, BARRIER, WATERMARK, CUT, FILL = range(1, 8)
DATA = (WRITE, ZERO, DISCARD)
PAYLOAD = (WRITE, FILL)


def crc_tables():
    one = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        one.append(byte)
    # Two bytes at a time: twice as fast, and quick enough to make.
    return one, [one[pair >> 8 ^ one[pair & 255] & 255] ^ one[pair & 255] >> 8 for pair in range(65536)]


ONE, TWO = crc_tables()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for pair in memoryview(data)[: len(data) & ~1].cast("H") if sys.byteorder == "little" else \
            struct.unpack("<%dH" % (len(data) // 2), data[: len(data) & ~1]):
        crc = TWO[(crc ^ pair) & 65535] ^ crc >> 16
    if len(data) & 1:
        crc = ONE[(crc ^ data[-1]) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


class Unreadable(Exception):
    """The directory cannot be read to its end; the text says why."""


class Identity:
    def __init__(self, directory):
        copies = []
        for name in ("identity.a", "identity.b"):
            try:
                with open(os.path.join(directory, name), "rb") as f:
                    copies.append(self.copy(f.read(4096)))
            except FileNotFoundError:
                pass
        copies = [c for c in copies if c]
        if not copies:
            raise Unreadable("no good identity record")
        best = max(copies, key=lambda c: c["generation"])
        self.__dict__.update(best)
        self.slots = self.segment_bytes // BLOCK
        self.nblocks = -(-self.size_bytes // BLOCK)

    @staticmethod
    def copy(raw):
        if len(raw) < 4096 or raw[:8] != b"NBIDENT1":
            return None
        version, crc, features = struct.unpack_from("<IIQ", raw, 8)
        if crc32c(raw[:12] + bytes(4) + raw[16:]) != crc:
            return None
        if version > 1 or features:
            raise Unreadable("a newer format: version %d, features %#x" % (version, features))
        generation, uuid, _made, size, limit, _key, segment = struct.unpack_from("<Q16sQQQQI", raw, 48)
        texts = [raw[at : at + n] for at, n in ((24, 24), (136, 512), (648, 512), (1160, 256))]
        if not version or not generation or not all(b"\0" in t for t in texts):
            return None
        if segment & (segment - 1) or not 2 << 20 <= segment <= 64 << 20:
            return None
        writer, url, volume, host = (t.split(b"\0")[0].decode() for t in texts)
        return {
            "generation": generation, "uuid": uuid, "size_bytes": size, "limit_bytes": limit,
            "segment_bytes": segment, "clean": bool(raw[120]),
            "last_seq": struct.unpack_from("<Q", raw, 128)[0], "url": url, "volume": volume,
            "host": host, "writer": writer,
        }


class Record:
    __slots__ = ("blk", "seq", "nblocks", "slot", "kind", "crcs", "segment", "void", "repeated")

    def __init__(self, raw, at):
        self.blk, self.seq, self.nblocks, self.slot, self.kind = struct.unpack_from("<QQIIB", raw, at)
        self.crcs = None  # None: only named
        self.segment = None
        self.void = False
        self.repeated = False

    @property
    def payload(self):
        return self.nblocks if self.kind in PAYLOAD else 0

    @property
    def first(self):
        """The smallest number that it stands for."""
        return self.blk + 1 if self.kind == CUT and self.crcs is not None else self.seq

    def sane(self, slots):
        if not WRITE <= self.kind <= FILL:
            return False
        if self.kind in DATA + (FILL,) and (not self.nblocks or self.blk + self.nblocks >= 1 << 52):
            return False
        return not self.payload or (self.slot >= 2 and self.slot + self.payload <= slots)


def slot_good(raw, magic):
    return len(raw) == BLOCK and raw[:8] == magic and crc32c(raw[16:]) == struct.unpack_from("<I", raw, 8)[0]


class Segment:
    """One file that counts; None of its contents is held in memory."""

    def __init__(self, path, number, identity):
        self.file = open(path, "rb")
        self.number, self.identity = number, identity
        self.records, self.named = [], []
        self.watermark = self.durable = 0
        self.counts = self.header(self.slot(0))
        if self.counts and not self.footer():
            self.records = []
            self.walk()

    def slot(self, slot, n=1):
        return os.pread(self.file.fileno(), n * BLOCK, slot * BLOCK)

    def header(self, raw):
        if not slot_good(raw, b"NBSEGM01"):
            return self.header_lost()
        features, uuid, number, size, self.kind, _, self.incarnation, self.first_seq, self.watermark, _ = \
            struct.unpack_from("<Q16sIIIIQQQQ", raw, 16)
        if features:
            raise Unreadable("segment %08x: unknown features %#x" % (number, features))
        return (number == self.number and size == self.identity.segment_bytes and
                uuid == self.identity.uuid and self.kind in (LOG, CLEAN))

    def header_lost(self):
        mine = (self.identity.uuid, self.number)
        said = []
        raw = self.slot(self.identity.slots - 1)
        if slot_good(raw, b"NBTRAIL1"):
            uuid, number, kind, incarnation = struct.unpack_from("<16sIIQ", raw, 16)
            said += [(incarnation, 0, kind)] * ((uuid, number) == mine)
        raw = self.slot(1)
        if slot_good(raw, b"NBBATCH1"):
            uuid, number, _, self.incarnation = struct.unpack_from("<16sIIQ", raw, 16)
            batch = self.batch(1) if (uuid, number) == mine else None
            if batch:
                said += [(self.incarnation, 1, CLEAN if batch[1][0].kind == FILL else LOG)]
        if said:
            self.incarnation, _, self.kind = max(said)
        return bool(said)

    def take(self, records, crcs):
        at = 0
        for r in records:
            r.segment = self
            r.crcs = crcs[at : at + r.payload]
            at += r.payload
        self.records += records

    def proofs(self, watermark, durable):
        self.watermark = max(self.watermark, watermark)
        self.durable = max(self.durable, durable)

    def footer(self):
        slots = self.identity.slots
        raw = self.slot(slots - 1)
        if not slot_good(raw, b"NBTRAIL1"):
            return False
        uuid, number, _kind, incarnation, n, c, end, crc, watermark, durable, _ = \
            struct.unpack_from("<16sIIQIIIIQQQ", raw, 16)
        if (uuid, number, incarnation) != (self.identity.uuid, self.number, self.incarnation):
            return False
        size = -(-(32 * n + 4 * c) // BLOCK)
        if size + 1 >= slots or c > slots or end > slots:
            return False
        table = self.slot(slots - 1 - size, size) if size else b""
        if len(table) != size * BLOCK or crc32c(table) != crc:
            return False
        records = [Record(table, 32 * i) for i in range(n)]
        if not all(r.sane(slots) for r in records) or sum(r.payload for r in records) != c:
            return False
        self.take(records, struct.unpack_from("<%dI" % c, table, 32 * n))
        self.proofs(watermark, durable)
        return True

    def batch(self, at):
        """(slots taken, records, repeated records, CRCs, watermark, durable) or None."""
        slots = self.identity.slots
        raw = self.slot(at)
        if raw[:8] != b"NBBATCH1" or not slot_good(raw, b"NBBATCH1"):
            return None
        uuid, number, stands, incarnation, watermark, durable, _, n, p, payload = \
            struct.unpack_from("<16sIIQQQQIII", raw, 16)
        if (uuid, number, stands, incarnation) != (self.identity.uuid, self.number, at, self.incarnation):
            return None
        if not 1 <= n <= 48 or p > 48 or payload > (BLOCK - 128 - 32 * (n + p)) // 4:
            return None
        records = [Record(raw, 128 + 32 * i) for i in range(n)]
        again = [Record(raw, 128 + 32 * i) for i in range(n, n + p)]
        following = at + 1
        for r in records:
            if not r.sane(slots) or (r.payload and r.slot != following):
                return None
            following += r.payload
        if following != at + 1 + payload or following > slots:
            return None
        crcs = struct.unpack_from("<%dI" % payload, raw, 128 + 32 * (n + p))
        return 1 + payload, records, again, crcs, watermark, durable

    def walk(self):
        at = 1
        end = min(self.identity.slots, os.fstat(self.file.fileno()).st_size // BLOCK)
        while at < end:
            batch = self.batch(at)
            if not batch:
                at += 1
                continue
            taken, records, again, crcs, watermark, durable = batch
            last = self.records[-1].seq if self.records else None
            again = [r for r in again if last is None or r.seq > last]
            self.named += [r for r in again if r.payload]
            for r in again:
                r.repeated = True
            self.take([r for r in again if not r.payload], ())
            self.take(records, crcs)
            self.proofs(watermark, durable)
            at += taken

    def block_good(self, r, i):
        raw = self.slot(r.slot + i)
        return len(raw) == BLOCK and crc32c(raw) == r.crcs[i]


def boot_word(directory):
    """Word 0 of `run` if it is of this boot, else 0."""
    try:
        with open(os.path.join(directory, "run"), "rb") as f:
            raw = f.read(4096)
        with open("/proc/sys/kernel/random/boot_id", "rb") as f:
            boot = f.read(39)
    except OSError:
        return 0
    if len(raw) < 112 or raw[:8] != b"NBRUN002" or raw[8:48] != boot.ljust(40, b"\0"):
        return 0
    parts = struct.unpack_from("=Q", raw, 48)[0]
    parts = [parts >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
    if parts[0] ^ parts[1] ^ parts[2] ^ parts[3] != 0xFFFF:
        return 0
    return parts[0] | parts[1] << 16 | parts[2] << 32


class Cache:
    """The directory after all steps of docs/FORMAT.md, section 6."""

    def __init__(self, directory):
        self.identity = Identity(directory)
        self.segments = []
        for name in sorted(os.listdir(directory)):
            if re.fullmatch("[0-9a-f]{8}\\.seg", name):
                s = Segment(os.path.join(directory, name), int(name[:8], 16), self.identity)
                if s.counts:
                    self.segments.append(s)
        self.order(directory)
        self.find_ends()
        self.apply()
        self.clean_store()

    def order(self, directory):
        nblocks = self.identity.nblocks
        log = [s for s in self.segments if s.kind == LOG]
        best = {}
        self.max_seen = 0
        for s in log:
            for r in s.records + s.named:
                self.max_seen = max(self.max_seen, r.seq)
                if r.kind in DATA + (FILL,) and r.blk + r.nblocks > nblocks:
                    continue
                rank = (r.crcs is not None, not r.repeated, s.incarnation)
                if r.seq not in best or best[r.seq][0] < rank:
                    best[r.seq] = (rank, r)
        self.log = [best[seq][1] for seq in sorted(best)]
        marks = [r.blk for s in log for r in s.records if r.kind == WATERMARK]
        self.watermark = max([0] + marks + [s.watermark for s in log])
        self.durable = max([0] + [s.durable for s in log])
        self.limit = max(self.watermark, self.durable, boot_word(directory))
        last_seq = self.identity.last_seq
        gone = self.identity.clean and self.max_seen < last_seq
        if self.identity.clean:
            self.watermark = self.limit = max(self.limit, self.max_seen, last_seq)
        else:
            self.limit = max(self.limit, last_seq)
        for r in self.log:
            r.void = gone
        self.cuts = [r for r in self.log if r.kind == CUT and r.crcs is not None]
        numbers = [r.seq for r in self.log]
        for cut in self.cuts:
            for i in range(bisect.bisect_right(numbers, cut.blk), bisect.bisect_left(numbers, cut.seq)):
                self.log[i].void = True

    def torn(self, r):
        return r.crcs is None or not all(r.segment.block_good(r, i) for i in range(r.payload))

    def find_ends(self):
        want = None
        self.last = self.watermark
        self.torn_records = 0
        for i, r in enumerate(self.log):
            if r.void:
                continue
            gap = r.first > want if want is not None else r.first > self.watermark + 1
            if gap and want is not None and r.first - 1 <= self.watermark:
                for old in self.log[:i]:
                    old.void = True
            elif gap and (want is None or want <= self.limit):
                raise Unreadable("records %d to %d of the log are missing" %
                                 (self.watermark + 1 if want is None else want, r.first - 1))
            elif gap or (r.seq > self.limit and self.torn(r)):
                for tail in self.log[i:]:
                    self.torn_records += not tail.void
                    tail.void = True
                break
            want = r.seq + 1
            self.last = max(self.last, r.seq)
        if want is not None and want <= self.watermark:
            for old in self.log:
                old.void = True
        if self.last < self.limit:
            raise Unreadable("records %d to %d of the log are missing" % (self.last + 1, self.limit))
        self.kept = [r for r in self.log if not r.void]
        self.tail = self.kept[0].first if self.kept else self.last + 1

    def apply(self):
        # Block → the record that it got last. Ranges of zeroes are laid over in the same way.
        newest = {}
        for r in self.kept:
            if r.kind in DATA:
                for blk in range(r.blk, r.blk + r.nblocks):
                    newest[blk] = r
        self.dirty, self.clean, self.lost, self.bad = {}, {}, [], []
        for blk in sorted(newest):
            r = newest[blk]
            dirty = r.seq > self.watermark
            if r.crcs is None or (r.payload and not r.segment.block_good(r, blk - r.blk)):
                (self.lost if dirty else self.bad).append(blk)
            else:
                (self.dirty if dirty else self.clean)[blk] = r

    def clean_store(self):
        self.filled = {}
        covered = set(self.dirty) | set(self.clean) | set(self.lost) | set(self.bad)
        for s in self.segments:
            for r in s.records if s.kind == CLEAN else ():
                if r.kind != FILL or r.seq + 1 < self.tail or r.blk + r.nblocks > self.identity.nblocks:
                    continue
                for i in range(r.nblocks):
                    if r.blk + i not in covered and s.block_good(r, i):
                        self.filled[r.blk + i] = r

    def block(self, blk, r):
        """The bytes of a block that record @r gave, as many as the volume has."""
        raw = r.segment.slot(r.slot + blk - r.blk) if r.payload else bytes(BLOCK)
        return raw[: self.identity.size_bytes - blk * BLOCK]

    def summary(self):
        identity = self.identity
        return {
            "url": identity.url, "volume": identity.volume, "uuid": identity.uuid.hex(),
            "size_bytes": identity.size_bytes, "clean_stop": identity.clean,
            "segments": len(self.segments), "records": len(self.kept),
            "watermark": self.watermark, "durable": self.durable, "limit": self.limit, "last": self.last,
            "tail": self.tail, "cuts": [[c.blk, c.seq] for c in self.cuts], "torn_records": self.torn_records,
            "dirty_blocks": len(self.dirty), "clean_blocks": len(self.clean), "filled_blocks": len(self.filled),
            "lost_blocks": self.lost, "damaged_clean_blocks": self.bad,
        }


def compare(cache, far_path, reference_path):
    """Each difference as a line of text."""
    problems = []
    with open(far_path, "rb") as far, open(reference_path, "rb") as reference:
        for blk in range(cache.identity.nblocks):
            theirs, wanted = far.read(BLOCK), reference.read(BLOCK)
            known = cache.clean.get(blk) or cache.filled.get(blk)
            if known and cache.block(blk, known) != theirs:
                problems.append("block %d: clean by record %d, but the far side differs" % (blk, known.seq))
            if blk in cache.dirty:
                theirs = cache.block(blk, cache.dirty[blk])
            if theirs != wanted:
                by = cache.dirty.get(blk)
                problems.append("block %d is wrong, %s" % (blk, "dirty by record %d" % by.seq if by else "not dirty"))
    problems += ["block %d is lost" % blk for blk in cache.lost]
    return problems


def overlay(cache, far_path):
    with open(far_path, "r+b") as far:
        for blk, r in cache.dirty.items():
            far.seek(blk * BLOCK)
            far.write(cache.block(blk, r))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory")
    parser.add_argument("--compare", nargs=2, metavar=("FAR", "REFERENCE"))
    parser.add_argument("--overlay", metavar="FAR")
    args = parser.parse_args()
    try:
        cache = Cache(args.directory)
    except Unreadable as why:
        sys.exit("%s: %s" % (args.directory, why))
    print(json.dumps(cache.summary()))
    if args.overlay:
        overlay(cache, args.overlay)
    if args.compare:
        problems = compare(cache, *args.compare)
        if problems:
            sys.exit("\n".join(problems[:20]))


if __name__ == "__main__":
    main()
