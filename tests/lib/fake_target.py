#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An iSCSI target that does as it is told, also what no honest target does.

    fake_target.py FILE CONTROL [--address A] [--portals N] [--port P] [--sector N] [--serial S] [--keep FILE]
    fake_target.py CONTROL tell WORD...

FILE holds what is durable. Writes are kept in memory until a SYNCHRONIZE CACHE or a FUA write (the caching
page says WCE=1), and a restart of the process or `forget` loses them. One target (any name is taken), LUN 1
and 0. It prints its port. --portals 2: also at 127.0.0.2, in a portal group of its own: a login there ends no session
at 127.0.0.1. CONTROL is a Unix socket; a request is one line of words, the answer one line:

    rule OP NTH COUNT DO...   the NTH (from 1) and COUNT - 1 further commands of OP (read, write, sync, same,
                              pr, tur, capacity, inquiry, mode, any) that come from now on are answered by DO:
                                sense KEY CODE     CHECK CONDITION (hex); the command is not carried out
                                tried KEY CODE     the same, after what was volatile was dropped
                                late KEY CODE      as tried, as a deferred error
                                garbage            CHECK CONDITION with sense data that is noise
                                status S           this SCSI status (hex)
                                short              half of the data, residual underflow, status GOOD
                                residual           all of the data, but a residual that says otherwise
                                nodata             GOOD and no data at all, residual underflow
                                quiet              never answered
                                drop               the connection ends
                                hold               kept until `release`, and carried out then, whoever is there
    rules                     forget all rules
    release                   what is held is carried out, in order; LUN RESET drops what was held before it
    settle                    what is volatile becomes durable
    lost                      end every connection
    forget                    lose what is volatile, end every connection, 29h for all who come
    attention CODE N          N unit attentions (hex) for every session
    size BYTES                the LUN has this size now; 2Ah/09h for every session
    sessions N                no more logins than so many at a time
    login hang|refuse|take    what happens to those who come
    cut N                     each connection ends after N more bytes to the initiator, in the middle of a PDU
    r2t never|normal          solicited data is never asked for
    reset answer|refuse|quiet what becomes of a LUN RESET
    count OP                  how many commands of OP came
    held                      how many are held
    stats                     sessions now, logins, resets, registrants and the holder, as JSON
    quit
"""

import argparse
import json
import os
import random
import socket
import struct
import sys
import threading

BURST = 262144
PLAIN = {0x00: "tur", 0x03: "mode", 0x12: "inquiry", 0x1A: "mode", 0x25: "capacity", 0x28: "read", 0x2A: "write",
         0x35: "sync", 0x5A: "mode", 0x5E: "pr", 0x5F: "pr", 0x88: "read", 0x8A: "write", 0x91: "sync",
         0x93: "same", 0xA0: "inquiry"}


def operation(cdb):
    if cdb[0] == 0x9E:
        return "capacity" if cdb[1] & 31 == 0x10 else "other"
    return PLAIN.get(cdb[0], "other")


class Sense(Exception):
    def __init__(self, key, code, late=False):
        super().__init__("%x/%04x" % (key, code))
        self.data = struct.pack(">BBBIBIHBB", 0x71 if late else 0x70, 0, key, 0, 10, 0, code, 0, 0) + b"\0\0"


class Conflict(Exception):
    pass


class Disk:
    """Sectors: durable ones in a file, volatile ones over it."""

    def __init__(self, path, sector):
        self.fd = os.open(path, os.O_RDWR)
        self.sector = sector
        self.size = os.fstat(self.fd).st_size // sector * sector
        self.volatile = {}

    def read(self, at, length):
        out = bytearray(os.pread(self.fd, length, at).ljust(length, b"\0"))
        if self.volatile:
            for lba in range(at // self.sector, (at + length) // self.sector):
                data = self.volatile.get(lba)
                if data is not None:
                    out[lba * self.sector - at : (lba + 1) * self.sector - at] = data
        return bytes(out)

    def write(self, at, data):
        for i in range(0, len(data), self.sector):
            self.volatile[(at + i) // self.sector] = data[i : i + self.sector]

    def sync(self):
        run, first, last = [], None, None
        for lba in sorted(self.volatile):
            if last is not None and lba == last + 1:
                run.append(self.volatile[lba])
            else:
                if run:
                    os.pwrite(self.fd, b"".join(run), first * self.sector)
                run, first = [self.volatile[lba]], lba
            last = lba
        if run:
            os.pwrite(self.fd, b"".join(run), first * self.sector)
        self.volatile = {}


class Rule:
    def __init__(self, words):
        self.op, self.skip, self.left = words[0], int(words[1]) - 1, int(words[2])
        self.do, self.args = words[3], [int(w, 16) for w in words[4:]]

    def takes(self, op):
        if self.op not in (op, "any") or not self.left:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.left -= 1
        return True


class Reservations:
    """SPC-4 5.13, as far as Write Exclusive - Registrants Only wants it."""

    def __init__(self, keep):
        self.keep = keep
        self.generation, self.keys, self.holder, self.type, self.aptpl = 0, {}, None, 0, False
        if keep and os.path.exists(keep):
            with open(keep) as f:
                self.generation, self.keys, self.holder, self.type, self.aptpl = json.load(f)

    def save(self):
        if self.keep:
            state = (self.generation, self.keys, self.holder, self.type, True)
            if not self.aptpl:
                state = (self.generation, {}, None, 0, False)
            with open(self.keep + ".new", "w") as f:
                json.dump(state, f)
            os.rename(self.keep + ".new", self.keep)

    def may(self, nexus, op):
        if self.holder is None or nexus == self.holder or (self.type in (5, 6, 7, 8) and nexus in self.keys):
            return True
        return op not in ("write", "same", "sync") and self.type in (1, 5, 7)

    def report(self, action, length):
        if action == 0:
            body = b"".join(struct.pack(">Q", k) for k in self.keys.values())
            out = struct.pack(">II", self.generation, len(body)) + body
        elif action == 1:
            body = b""
            if self.holder is not None:
                body = struct.pack(">QIBBH", self.keys.get(self.holder, 0), 0, 0, self.type, 0)
            out = struct.pack(">II", self.generation, len(body)) + body
        elif action == 2:
            out = struct.pack(">HBBHH", 8, 0x01, 0x80, 0xEA01, 0)
        elif action == 3:
            body = b"".join(self.full_status(n, k) for n, k in self.keys.items())
            out = struct.pack(">II", self.generation, len(body)) + body
        else:
            raise Sense(5, 0x2400)
        return out[:length]

    def full_status(self, nexus, key):
        name = nexus.split(",t,")[0].encode() + b"\0"
        name += bytes(-len(name) & 3)
        holder = nexus == self.holder
        return struct.pack(">QIBBIHI", key, 0, holder, self.type if holder else 0, 0, 1, 4 + len(name)) + struct.pack(
            ">BBH", 0x45, 0, len(name)) + name

    def act(self, nexus, action, kind, data, attention):
        if len(data) < 24:
            raise Sense(5, 0x1A00)
        key, new = struct.unpack_from(">QQ", data)
        mine = self.keys.get(nexus)
        if action in (0, 6):  # REGISTER, REGISTER AND IGNORE EXISTING KEY
            if action == 0 and key != (mine or 0):
                raise Conflict()
            self.aptpl = bool(data[20] & 1)
            if new:
                self.keys[nexus] = new
            elif mine is not None:
                del self.keys[nexus]
                if self.holder == nexus:
                    self.holder = None
            self.generation += 1
        elif mine is None or key != mine:
            raise Conflict()
        elif action == 1:  # RESERVE
            if self.holder not in (None, nexus) or (self.holder == nexus and self.type != kind):
                raise Conflict()
            self.holder, self.type = nexus, kind
        elif action == 2:  # RELEASE
            if self.holder == nexus:
                if kind != self.type:
                    raise Sense(5, 0x2604)
                self.holder = None
        elif action == 3:  # CLEAR
            attention(0x2A03, [n for n in self.keys if n != nexus])
            self.keys, self.holder = {}, None
            self.generation += 1
        elif action in (4, 5):  # PREEMPT, AND ABORT
            gone = [n for n, k in self.keys.items() if k == new and n != nexus]
            if not gone and new != mine:
                raise Conflict()
            for n in gone:
                del self.keys[n]
            if self.holder in gone or self.holder is None or new == mine:
                self.holder, self.type = nexus, kind
            attention(0x2A05, gone)
            self.generation += 1
        else:
            raise Sense(5, 0x2400)
        self.save()


class Target:
    def __init__(self, args):
        self.lock = threading.RLock()
        self.disk = Disk(args.file, args.sector)
        self.serial = args.serial.encode()
        self.reservations = Reservations(args.keep)
        self.sessions = {}  # (initiator name, ISID) → Connection
        self.attentions = {}  # the same → [code]
        self.known = set()
        self.rules, self.held, self.counts = [], [], {}
        self.max_sessions, self.login, self.r2t, self.reset = 1 << 30, "take", "normal", "answer"
        self.logins = self.resets = 0
        self.tsih = 0

    def attention(self, code, nexuses):
        for n in nexuses:
            self.attentions.setdefault(n, []).append(code)

    def rule(self, op):
        self.counts[op] = self.counts.get(op, 0) + 1
        for rule in self.rules:
            if rule.takes(op):
                return rule
        return None

    # ---- control ----

    def command(self, words):
        verb, rest = words[0], words[1:]
        with self.lock:
            if verb == "rule":
                self.rules.append(Rule(rest))
            elif verb == "rules":
                self.rules = []
            elif verb == "release":
                held, self.held = self.held, []
                for connection, task in held:
                    connection.finish(task)
            elif verb == "settle":
                self.disk.sync()
            elif verb == "lost":
                self.end_all()
            elif verb == "forget":
                self.disk.volatile = {}
                self.held = []
                self.known = set()
                if not self.reservations.aptpl:
                    self.reservations.keys, self.reservations.holder = {}, None
                self.end_all()
            elif verb == "attention":
                for _ in range(int(rest[1])):
                    self.attention(int(rest[0], 16), list(self.sessions))
            elif verb == "size":
                self.disk.size = int(rest[0])
                self.attention(0x2A09, list(self.sessions))
            elif verb == "sessions":
                self.max_sessions = int(rest[0])
            elif verb in ("login", "r2t", "reset"):
                setattr(self, verb, rest[0])
            elif verb == "cut":
                for c in self.sessions.values():
                    c.bytes_left = int(rest[0])
            elif verb == "count":
                return str(self.counts.get(rest[0], 0))
            elif verb == "held":
                return str(len(self.held))
            elif verb == "stats":
                r = self.reservations
                return json.dumps({"sessions": len(self.sessions), "logins": self.logins, "resets": self.resets,
                                   "keys": {n: "%016x" % k for n, k in r.keys.items()}, "holder": r.holder,
                                   "generation": r.generation, "volatile": len(self.disk.volatile)})
            else:
                return "unknown"
        return "ok"

    def end_all(self):
        for c in list(self.sessions.values()):
            c.end()

    def serve_control(self, path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        while True:
            client, _ = listener.accept()
            with client, client.makefile("rw") as f:
                words = f.readline().split()
                if words == ["quit"]:
                    os._exit(0)
                try:
                    answer = self.command(words)
                except Exception as e:  # pylint: disable=broad-except
                    answer = "error: %r" % e
                f.write(answer + "\n")


class Task:
    def __init__(self, bhs):
        self.flags, self.lun, self.itt, self.expected = bhs[1], bhs[8:16], bhs[16:20], struct.unpack(">I", bhs[20:24])[0]
        self.cdb = bhs[32:48]
        self.op = operation(self.cdb)
        self.data = bytearray()
        self.want = self.expected if bhs[1] & 0x20 else 0
        self.asked = 0
        self.rule = None

    def extent(self, sector):
        if self.cdb[0] in (0x28, 0x2A):
            lba, n = struct.unpack(">xxIxH", self.cdb[:9])
        else:
            lba, n = struct.unpack(">xxQI", self.cdb[:14])
        return lba * sector, n * sector


class Connection:
    def __init__(self, target, sock):
        self.target, self.sock = target, sock
        self.send_lock = threading.Lock()
        self.group = int(sock.getsockname()[0].rpartition(".")[2])
        self.nexus = None
        self.statsn, self.expcmdsn = 1, 0
        self.tasks = {}
        self.bytes_left = None
        self.ended = False
        self.max_send = 8192
        self.first_burst, self.initial_r2t = 65536, True

    # ---- wire ----

    def receive(self, n):
        out = bytearray()
        while len(out) < n:
            part = self.sock.recv(n - len(out))
            if not part:
                raise ConnectionError()
            out += part
        return bytes(out)

    def receive_pdu(self):
        bhs = self.receive(48)
        self.receive(4 * bhs[4])
        length = int.from_bytes(bhs[5:8], "big")
        return bhs, self.receive(length + (-length & 3))[:length]

    def send(self, opcode, flags, itt, specific, data=b"", head=b"\0\0", lun=bytes(8), status=True):
        """@specific is bytes 20 to 47 without StatSN, ExpCmdSN and MaxCmdSN: (4 bytes, 12 bytes)."""
        with self.send_lock:
            bhs = bytes([opcode, flags]) + head + bytes([0]) + len(data).to_bytes(3, "big") + lun + itt
            bhs += specific[0] + struct.pack(">III", self.statsn, self.expcmdsn & 0xFFFFFFFF,
                                             self.expcmdsn + 64 & 0xFFFFFFFF) + specific[1]
            assert len(bhs) == 48
            if status:
                self.statsn += 1
            raw = bhs + data + bytes(-len(data) & 3)
            if self.bytes_left is not None:
                raw = raw[: self.bytes_left]
                self.bytes_left -= len(raw)
            try:
                self.sock.sendall(raw)
            except OSError:
                pass
            if self.bytes_left == 0:
                self.end()

    def end(self):
        self.ended = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    # ---- life ----

    def run(self):
        try:
            if self.login():
                while not self.ended:
                    self.pdu(*self.receive_pdu())
        except (ConnectionError, OSError):
            pass
        finally:
            with self.target.lock:
                self.ended = True
                if self.target.sessions.get(self.nexus) is self:
                    del self.target.sessions[self.nexus]
            self.sock.close()

    def login(self):
        target, keys = self.target, {}
        while True:
            bhs, data = self.receive_pdu()
            if bhs[0] & 0x3F != 0x03:
                return False
            for pair in data.split(b"\0"):
                if b"=" in pair:
                    k, v = pair.decode().split("=", 1)
                    keys[k] = v
            self.expcmdsn = struct.unpack(">I", bhs[24:28])[0]
            isid = bhs[8:14]
            if target.login == "hang":
                threading.Event().wait(3600)
            refused = None
            if target.login == "refuse":
                refused = b"\x03\x01"
            transit, csg, nsg = bhs[1] & 0x80, bhs[1] >> 2 & 3, bhs[1] & 3
            answer = {}
            if csg == 0:
                if "AuthMethod" in keys:
                    answer["AuthMethod"] = "None"
                answer["TargetPortalGroupTag"] = str(self.group)
            else:
                answer = self.negotiate(keys)
            final = transit and nsg == 3
            if final and not refused:
                with target.lock:
                    nexus = "%s,i,0x%s,t,0x%04x" % (keys.get("InitiatorName", "?"), isid.hex(), self.group)
                    old = target.sessions.get(nexus)
                    if not old and len(target.sessions) >= target.max_sessions:
                        refused = b"\x03\x02"
                    elif keys.get("SessionType") != "Discovery":
                        if old:
                            old.end()
                        self.nexus = nexus
                        target.sessions[nexus] = self
                        target.logins += 1
                        target.tsih = target.tsih % 65535 + 1
                        target.attentions[nexus] = [0x2900]
            text = b"".join(("%s=%s" % kv).encode() + b"\0" for kv in answer.items())
            head = bytes([0, 0])
            status = refused or b"\0\0"
            flags = (0x80 if transit and not refused else 0) | csg << 2 | (nsg if transit and not refused else 0)
            self.send_login(bhs, flags, head, isid, status, b"" if refused else text, final)
            if refused:
                return False
            if final:
                return True
            keys = {k: v for k, v in keys.items() if k in ("InitiatorName", "SessionType", "TargetName")}

    def send_login(self, bhs, flags, head, isid, status, text, final):
        tsih = struct.pack(">H", self.target.tsih if final else 0)
        raw = bytes([0x23, flags]) + head + bytes([0]) + len(text).to_bytes(3, "big") + isid + tsih + bhs[16:20]
        raw += bytes(4) + struct.pack(">III", self.statsn, self.expcmdsn, self.expcmdsn + 64) + status + bytes(10)
        self.statsn += 1
        self.sock.sendall(raw + text + bytes(-len(text) & 3))

    def negotiate(self, keys):
        answer = {}
        self.initial_r2t = keys.get("InitialR2T") != "No"
        self.first_burst = min(int(keys.get("FirstBurstLength", 65536)), 65536)
        self.max_send = int(keys.get("MaxRecvDataSegmentLength", 8192))
        fixed = {"HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "No" if not self.initial_r2t else "Yes",
                 "ImmediateData": "Yes", "MaxBurstLength": str(BURST), "FirstBurstLength": str(self.first_burst),
                 "MaxOutstandingR2T": "1", "MaxConnections": "1", "DataPDUInOrder": "Yes",
                 "DataSequenceInOrder": "Yes", "ErrorRecoveryLevel": "0", "DefaultTime2Wait": "0",
                 "DefaultTime2Retain": "0", "MaxRecvDataSegmentLength": str(BURST)}
        for key, value in fixed.items():
            if key in keys:
                answer[key] = value
        return answer

    # ---- requests ----

    def pdu(self, bhs, data):
        opcode = bhs[0] & 0x3F
        if not bhs[0] & 0x40 and opcode != 0x05:
            self.expcmdsn = struct.unpack(">I", bhs[24:28])[0] + 1
        if opcode == 0x00:  # NOP-Out
            if bhs[16:20] != b"\xff\xff\xff\xff":
                self.send(0x20, 0x80, bhs[16:20], (b"\xff\xff\xff\xff", bytes(12)), data)
        elif opcode == 0x01:
            task = Task(bhs)
            self.tasks[task.itt] = task
            self.more(task, data, bhs[1] & 0x80)
        elif opcode == 0x02:
            self.task_management(bhs)
        elif opcode == 0x05:  # Data-Out
            task = self.tasks.get(bhs[16:20])
            if task:
                self.more(task, data, bhs[1] & 0x80)
        elif opcode == 0x06:  # Logout
            self.send(0x26, 0x80, bhs[16:20], (bytes(4), bytes(12)))
            self.end()
        elif opcode == 0x04:  # Text
            self.send(0x24, 0x80, bhs[16:20], (b"\xff\xff\xff\xff", bytes(12)),
                      b"TargetName=iqn.2026-01.test:fake\0TargetAddress=%s:%d,1\0" %
                      (self.sock.getsockname()[0].encode(), self.sock.getsockname()[1]))

    def task_management(self, bhs):
        target = self.target
        with target.lock:
            if bhs[1] & 0x7F == 5 and target.reset == "answer":
                target.resets += 1
                target.held = []
                for c in target.sessions.values():
                    c.tasks = {}
                target.attention(0x2900, [n for n in target.sessions if n != self.nexus])
            if target.reset == "quiet":
                return
            response = 5 if target.reset == "refuse" else 0
        self.send(0x22, 0x80, bhs[16:20], (bytes(4), bytes(12)), head=bytes([response, 0]))

    def more(self, task, data, final):
        """Data of @task has come; the rest is asked for, or it begins."""
        task.data += data
        if len(task.data) < task.want:
            if not final or len(task.data) < task.asked:
                return
            if self.target.r2t == "never":
                return
            n = min(BURST, task.want - len(task.data))
            at = len(task.data)
            task.asked = at + n
            self.send(0x31, 0x80, task.itt, (b"\0\0\0\1", struct.pack(">III", 0, at, n)), lun=task.lun, status=False)
            return
        with self.target.lock:
            if task.itt not in self.tasks:
                return
            task.rule = self.target.rule(task.op)
            do = task.rule.do if task.rule else None
            if do == "hold":
                self.target.held.append((self, task))
                return
            if do == "quiet":
                return
            if do == "drop":
                self.end()
                return
            self.finish(task)

    def finish(self, task):
        """Carry out and answer; with the target's lock."""
        rule, target = task.rule, self.target
        do = rule.do if rule else None
        self.tasks.pop(task.itt, None)
        try:
            pending = target.attentions.get(self.nexus)
            if pending and do != "hold" and task.cdb[0] not in (0x12, 0xA0, 0x03):
                raise Sense(6, pending.pop(0))
            if do in ("sense", "late", "tried"):
                if do != "sense":
                    target.disk.volatile = {}
                raise Sense(rule.args[0], rule.args[1], do == "late")
            if do == "garbage":
                noise = random.Random(len(task.data)).randbytes(40)
                self.answer(task, 0x02, struct.pack(">H", 0xFFF0) + noise)
                return
            if do == "status":
                self.answer(task, rule.args[0])
                return
            if not target.reservations.may(self.nexus, task.op):
                raise Conflict()
            out = self.carry_out(task)
        except Sense as s:
            self.answer(task, 0x02, struct.pack(">H", len(s.data)) + s.data)
            return
        except Conflict:
            self.answer(task, 0x18)
            return
        if do == "short":
            out = out[: len(out) // 1024 * 512]
        elif do == "nodata":
            out = b""
        self.data_in(task, out, 512 if do == "residual" else None)

    def answer(self, task, status, sense=b"", flags=0, residual=0):
        self.send(0x21, 0x80 | flags, task.itt, (bytes(4), struct.pack(">III", 0, 0, residual)), sense,
                  head=bytes([0, status]))

    def data_in(self, task, out, lie):
        if not task.flags & 0x40:
            self.answer(task, 0, flags=2 if lie else 0, residual=lie or 0)
            return
        out = out[: task.expected]
        at = 0
        n = 0
        while at < len(out):
            part = out[at : at + self.max_send]
            last = at + len(part) == len(out)
            self.send(0x25, 0x80 if last else 0, task.itt,
                      (b"\xff\xff\xff\xff", struct.pack(">III", n, at, 0)), part, lun=task.lun, status=False)
            at += len(part)
            n += 1
        missing = lie if lie is not None else task.expected - len(out)
        self.answer(task, 0, flags=2 if missing else 0, residual=missing)

    def carry_out(self, task):
        target, cdb, disk = self.target, task.cdb, self.target.disk
        if task.op in ("read", "write", "same"):
            at, length = task.extent(disk.sector)
            if at + length > disk.size:
                raise Sense(5, 0x2100)
            if task.op == "read":
                return disk.read(at, length)
            disk.write(at, bytes(task.data) if task.op == "write" else bytes(task.data[: disk.sector]) * (length // disk.sector))
            if cdb[1] & 8 and task.op == "write":
                disk.sync()
            return b""
        if task.op == "sync":
            disk.sync()
            return b""
        if task.op == "tur":
            return b""
        if task.op == "capacity":
            blocks = disk.size // disk.sector
            if cdb[0] == 0x25:
                return struct.pack(">II", min(blocks - 1, 0xFFFFFFFF), disk.sector)
            return struct.pack(">QIBB", blocks - 1, disk.sector, 0, 0) + bytes(18)
        if task.op == "inquiry":
            return self.inquiry(cdb)
        if task.op == "mode":
            caching = bytes([0x08, 0x12, 0x04]) + bytes(17)
            if cdb[0] == 0x5A:
                return struct.pack(">HBBHH", 6 + len(caching), 0, 0x10, 0, 0) + caching
            return bytes([3 + len(caching), 0, 0x10, 0]) + caching
        if task.op == "pr":
            length = struct.unpack(">H", cdb[7:9])[0]
            if cdb[0] == 0x5E:
                return target.reservations.report(cdb[1] & 31, length)
            target.reservations.act(self.nexus, cdb[1] & 31, cdb[2] & 15, task.data, target.attention)
            return b""
        raise Sense(5, 0x2000)

    def inquiry(self, cdb):
        if cdb[0] == 0xA0:
            return struct.pack(">II", 8, 0) + bytes([0, 1]) + bytes(6)
        if not cdb[1] & 1:
            return bytes([0, 0, 6, 2, 31, 0, 0, 2]) + b"TEST    " + b"FAKE TARGET     " + b"1   "
        serial = self.target.serial
        pages = {0x00: bytes([0x00, 0x80, 0x83]), 0x80: serial,
                 0x83: bytes([2, 1, 0, 8 + len(serial)]) + b"TEST    " + serial}
        if cdb[2] not in pages:
            raise Sense(5, 0x2400)
        return bytes([0, cdb[2]]) + struct.pack(">H", len(pages[cdb[2]])) + pages[cdb[2]]


def serve(target, listener):
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=Connection(target, sock).run, daemon=True).start()


def tell(path, words):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    with client, client.makefile("rw") as f:
        f.write(" ".join(words) + "\n")
        f.flush()
        answer = f.readline().strip()
    print(answer)
    sys.exit(answer.startswith(("error", "unknown")))


def main():
    if len(sys.argv) > 3 and sys.argv[2] == "tell":
        tell(sys.argv[1], sys.argv[3:])
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("control")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--portals", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--sector", type=int, default=512)
    parser.add_argument("--serial", default="FAKE0001")
    parser.add_argument("--keep", help="where reservations with APTPL survive a restart")
    args = parser.parse_args()
    target = Target(args)
    listener = socket.create_server((args.address, args.port))
    port = listener.getsockname()[1]
    for i in range(2, args.portals + 1):
        more = socket.create_server(("127.0.0.%d" % i, port))
        threading.Thread(target=serve, args=(target, more), daemon=True).start()
    threading.Thread(target=target.serve_control, args=(args.control,), daemon=True).start()
    print(port, flush=True)
    serve(target, listener)


if __name__ == "__main__":
    main()
