#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a path between two network namespaces, without any tool but this one.

    net_probe.py rtt FROM TO ADDRESS COUNT     UDP echo; prints "RECEIVED LEAST_MS MEDIAN_MS"
    net_probe.py goodput FROM TO ADDRESS SECONDS [WARM_UP]
                                               TCP bulk; prints "BYTES_PER_SECOND CONTROL"
    net_probe.py copy FROM TO ADDRESS BYTES    TCP, contents compared; prints "SECONDS"

ADDRESS is one of TO. Both ends live in this one process: a socket belongs to the namespace in which
it was made, so there is nothing to start, to wait for and to clean up."""
import ctypes
import hashlib
import os
import socket
import statistics
import struct
import sys
import threading
import time

CHUNK = 256 * 1024
PATIENCE = 0.5          # seconds beyond which an echo counts as lost


def enter(namespace):
    fd = os.open("/run/netns/" + namespace, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0x40000000) < 0:
        sys.exit(f"setns {namespace}: {os.strerror(ctypes.get_errno())}")
    os.close(fd)


def socket_in(namespace, address, kind):
    enter(namespace)
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)


def rtt(source, target, address, count):
    server = socket_in(target, address, socket.SOCK_DGRAM)
    server.bind((address, 0))
    client = socket_in(source, address, socket.SOCK_DGRAM)
    server.settimeout(PATIENCE)
    client.settimeout(PATIENCE)
    times = []
    for number in range(int(count)):
        want = number.to_bytes(8, "big")
        start = time.monotonic()
        client.sendto(want, server.getsockname())
        try:
            data, peer = server.recvfrom(64)
            server.sendto(data, peer)
            while client.recv(64) != want:
                pass
            times.append((time.monotonic() - start) * 1000)
        except socket.timeout:
            pass
    if not times:
        print("0 inf inf")
    else:
        print(f"{len(times)} {min(times):.3f} {statistics.median(times):.3f}")


def connect(source, target, address):
    listener = socket_in(target, address, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen(1)
    sender = socket_in(source, address, socket.SOCK_STREAM)
    sender.connect(listener.getsockname())
    receiver, _ = listener.accept()
    return sender, receiver


def goodput(source, target, address, seconds, warm_up="1"):
    sender, receiver = connect(source, target, address)
    stop = threading.Event()

    def pump():
        block = os.urandom(CHUNK)
        try:
            while not stop.is_set():
                sender.sendall(block)
        except OSError:
            pass

    threading.Thread(target=pump, daemon=True).start()
    buffer = bytearray(CHUNK)
    start = time.monotonic() + float(warm_up)
    end = start + float(seconds)
    total = 0
    first = None
    while True:
        got = receiver.recv_into(buffer)
        now = time.monotonic()
        if first is None and now >= start:
            first = now
        elif first is not None:
            total += got
        if now >= end:
            break
    stop.set()
    control = sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    # What is still buffered is not to fill the path of whoever comes next.
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.shutdown(socket.SHUT_RDWR)
    sender.close()
    print(f"{total / (now - first):.0f} {control.rstrip(bytes(1)).decode()}")


def copy(source, target, address, size):
    sender, receiver = connect(source, target, address)
    data = os.urandom(int(size))
    start = time.monotonic()

    def pump():
        sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)

    threading.Thread(target=pump, daemon=True).start()
    digest = hashlib.sha256()
    while block := receiver.recv(CHUNK):
        digest.update(block)
    if digest.digest() != hashlib.sha256(data).digest():
        sys.exit("what arrived is not what was sent")
    print(f"{time.monotonic() - start:.3f}")


if __name__ == "__main__":
    {"rtt": rtt, "goodput": goodput, "copy": copy}[sys.argv[1]](*sys.argv[2:])
