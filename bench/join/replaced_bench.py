#!/usr/bin/env python3
"""The attested join compared with the system that it replaces, Intel's "PSI with SGX".

``cargo xtask bench replaced --scripts DIR`` prepares everything and runs this. DIR holds the genuine Python
example, unchanged: ``server.py``, ``data_provider1.py`` and ``data_provider2.py`` from the folder
cczoo/psi/grpc/v1.38.1/examples/python/psi of github.com/intel/confidential-computing-zoo. By hand, in an
environment with grpcio, grpcio-tools and cryptography::

    replaced_bench.py --convelo PROGRAM --scripts DIR [--keys N] [--rounds N] [--json FILE]

Both sides are a service and two providers, three processes, and join the same two sets of N ids of 16
characters, half of which are common. The scripts get mutual TLS instead of their patched gRPC's RA-TLS,
which needs SGX; Python starts them with that one change. Our side attests, on a simulated platform. Both
take turns. CPU is user and system time of all processes, without starting the services. Rounds in which a
script fails or does not end within a minute have no CPU to compare and count as wrong.

Exit status: 0 all goals hold, 1 a goal was missed or a run failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import ast
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from grpc_tools import protoc
from join_bench import PARTIES, Ours, Rows, cpu_of, say, write_ids

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "python/tests/kit"))

from party_certificates import Authority, common_name

# No script gets more seconds than this.
PATIENCE = 60

# Runs one of their scripts: what their gRPC has and PyPI's lacks is replaced by mutual TLS.
WITH_MUTUAL_TLS = """
import grpc, pathlib, runpy, sys

def read(name):
    return pathlib.Path(name).read_bytes()

authority, key, certificate = read("ca.crt"), read("peer.pem"), read("peer.crt")
grpc.sgxratls_server_credentials = lambda config_json, verify_option: grpc.ssl_server_credentials(
    [(key, certificate)], authority, require_client_auth=True)
grpc.sgxratls_channel_credentials = lambda config_json, verify_option: grpc.ssl_channel_credentials(
    authority, key, certificate)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Theirs:
    """The genuine scripts, and what they need."""

    def __init__(self, scripts: pathlib.Path, directory: pathlib.Path) -> None:
        self.scripts, self.directory = scripts, directory
        proto = REPOSITORY / "proto/psi/psi.proto"
        arguments = ["protoc", f"-I{proto.parent}", f"--python_out={directory}"]
        if protoc.main([*arguments, f"--grpc_python_out={directory}", str(proto)]) != 0:
            sys.exit("protoc failed to generate the stubs")
        Authority(directory, common_name("bench")).issue("peer", 2)

    def start(self, script: str, *arguments: str, output: pathlib.Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", WITH_MUTUAL_TLS, self.scripts / script, *arguments],
            cwd=self.directory, stdout=output.open("wb"), stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(self.directory)},
        )

    def join(self, common: int) -> tuple[tuple[float, float] | None, bool]:
        """Processor seconds of all processes and of the server, or none if it did not end, and whether both
        found everything in common."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"localhost:{probe.getsockname()[1]}"
        server = self.start("server.py", "-host", address, output=self.directory / "server.log")
        try:
            self.wait_for(server, address)
            before = cpu_of(server.pid)
            outputs = [self.directory / f"{party}.out" for party in PARTIES]
            providers = [
                self.start(f"data_provider{number}.py", "-host", address, "-is_chief", "True", "-data_dir",
                           f"{party}.txt", "-client_num", "2", output=output)
                for number, (party, output) in enumerate(zip(PARTIES, outputs), 1)
            ]
            used, deadline = 0.0, time.monotonic() + PATIENCE
            ended = True
            for provider in providers:
                cpu = self.end_of(provider, deadline)
                ended = ended and cpu is not None
                used += cpu or 0.0
            if not ended:
                return None, False
            of_server = cpu_of(server.pid) - before
            found = [self.found(output) for output in outputs]
            say(f"  they found {found[0]:,} and {found[1]:,} of {common:,}")
            return (used + of_server, of_server), found == [common, common]
        finally:
            server.kill()
            server.wait()

    def wait_for(self, server: subprocess.Popen[bytes], address: str) -> None:
        host, port = address.split(":")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection((host, int(port)), 1).close()
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"their server does not listen:\n{(self.directory / 'server.log').read_text()}")
                time.sleep(0.05)

    @staticmethod
    def end_of(process: subprocess.Popen[bytes], deadline: float) -> float | None:
        """Processor seconds of a process that ends well before the deadline."""
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return used.ru_utime + used.ru_stime if process.returncode == 0 else None
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                return None
            time.sleep(0.01)

    @staticmethod
    def found(output: pathlib.Path) -> int:
        """The number of ids in the list that a provider prints at the end."""
        last = output.read_text().rstrip().rsplit("\n", 1)[-1]
        return len(set(ast.literal_eval(last)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--convelo", required=True)
    parser.add_argument("--scripts", required=True, type=pathlib.Path)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    keys, common = options.keys, options.keys - options.keys // 2
    scripts = options.scripts.resolve()
    for script in ("server.py", "data_provider1.py", "data_provider2.py"):
        if not (scripts / script).is_file():
            sys.exit(f"{scripts} has no {script}: --scripts must name the folder of the genuine Python example")
    ours: list[dict[str, float]] = []
    theirs: list[tuple[float, float]] = []
    right = 0
    with tempfile.TemporaryDirectory(prefix="convelo-bench-") as name:
        directory = pathlib.Path(name)
        for number, party in enumerate(PARTIES):
            write_ids(directory / f"{party}.csv", number * (keys // 2), keys, number + 1)
            (directory / f"{party}.txt").write_text((directory / f"{party}.csv").read_text().split("\n", 1)[1])
        side, other = Ours(os.path.abspath(options.convelo), directory, keys), Theirs(scripts, directory)
        try:
            for number in range(options.rounds):
                ours.append(side.join())
                say(f"round {number + 1}: ours {ours[-1]}")
                used, is_right = other.join(common)
                say(f"round {number + 1}: theirs {'no end, or an error' if used is None else f'{used[0]:.3f} s CPU'}")
                right += is_right
                theirs += [] if used is None else [used]
        finally:
            side.close()
    if not theirs:
        sys.exit("none of their rounds ended: there is nothing to compare with; try more --rounds")
    ours_right = sum(run["common"] == common for run in ours)

    rows = Rows()
    rows.add(f"two sets of {keys:,}, CPU of all processes",
             min(run["cpu"] for run in ours), min(cpu for cpu, _ in theirs), "s", 0.1)
    rows.add(f"two sets of {keys:,}, the service's CPU",
             min(run["service cpu"] for run in ours), min(cpu for _, cpu in theirs), "s", 0.1)
    rows.add(f"rounds of {options.rounds} with a wrong result at a party",
             len(ours) - ours_right, options.rounds - right, "", 0.0)
    rows.finish(options.json)


if __name__ == "__main__":
    main()
