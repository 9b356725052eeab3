#!/usr/bin/env python3
"""One party of OpenMined's PSI: ``party_openmined.py openmined RANK PORT PORT TABLE``. Rank 0 gets the result.

ECDH on P-256 with a Golomb-compressed set, messages over a socket on the first port, each after its
length. Prints one line of JSON: how many ids are common, and the processor seconds without the
interpreter's start, imports and reading the table.
"""

from __future__ import annotations

import json
import resource
import socket
import struct
import sys
import time

import private_set_intersection.python as psi

# The same probability of a wrong id as the project's own examples.
FALSE_POSITIVES = 1e-9

PATIENCE_SECONDS = 60


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(struct.pack(">Q", len(message)) + message)


def receive(connection: socket.socket) -> bytes:
    (length,) = struct.unpack(">Q", exactly(connection, 8))
    return exactly(connection, length)


def exactly(connection: socket.socket, length: int) -> bytes:
    parts = []
    while length:
        part = connection.recv(min(length, 1 << 20))
        if not part:
            raise EOFError("the other party has gone")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def connected(address: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return socket.create_connection(address)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def server(address: tuple[str, int], items: list[str]) -> float:
    with socket.create_server(address) as listener:
        connection, _ = listener.accept()
    before = cpu_seconds()
    side = psi.server.CreateWithNewKey(True)
    count = int(receive(connection))
    setup = side.CreateSetupMessage(FALSE_POSITIVES, count, items, psi.DataStructure.GCS)
    send(connection, setup.SerializeToString())
    request = psi.Request()
    request.ParseFromString(receive(connection))
    send(connection, side.ProcessRequest(request).SerializeToString())
    return cpu_seconds() - before


def client(address: tuple[str, int], items: list[str]) -> tuple[float, int]:
    connection = connected(address)
    before = cpu_seconds()
    side = psi.client.CreateWithNewKey(True)
    send(connection, str(len(items)).encode())
    request = side.CreateRequest(items).SerializeToString()
    setup, response = psi.ServerSetup(), psi.Response()
    setup.ParseFromString(receive(connection))
    send(connection, request)
    response.ParseFromString(receive(connection))
    common = len(side.GetIntersection(setup, response))
    return cpu_seconds() - before, common


def main() -> None:
    rank, address, table = int(sys.argv[2]), ("127.0.0.1", int(sys.argv[3])), sys.argv[5]
    with open(table) as file:
        items = file.read().split()[1:]
    if rank == 0:
        cpu, common = client(address, items)
        print(json.dumps({"cpu": cpu, "common": common}))
    else:
        print(json.dumps({"cpu": server(address, items)}))


if __name__ == "__main__":
    main()
