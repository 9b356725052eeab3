#!/usr/bin/env python3
"""Our Pool and tno.mpc.communication side by side, on loopback, one process per party.

``cargo xtask bench pool`` prepares everything and runs this. By hand::

    pool_bench.py --ours-path DIRECTORY --peer PYTHON [--rust PROGRAM] [--only seq,b100m] [--json FILE]

This interpreter, with ``--ours-path`` at the front of its path, runs our side; the interpreter given by
``--peer`` runs the genuine package. Both run the same scenarios in turn (ours, peer, ours, peer).

Scenarios
  rtt      ping-pong, one message at a time: CPU, and the shortest round trip
  seq      100-byte messages, each awaited before the next
  conc     100-byte messages, 64 awaited together
  asend    100-byte messages, none of them awaited
  b1m b100m b1g   bytes of 1 MB, 100 MB, 1 GiB
  np100m   a numpy float64 array of 100 MB
  frame    a pandas DataFrame of 2,000,000 rows: int64, float64, str
  a2a      ten parties, everyone sends 100 kB to everyone
  rust     our Rust Pool and bare tokio TCP, 100 MB messages (only with --rust)

CPU is user and system time of all parties' whole processes, with all their threads, between two
barriers. Peak memory is the high-water mark of the whole process's resident memory, including the
interpreter, libraries and the message itself. A row's ``ratio`` is peer / ours: how many times less
ours needs. The table goes to standard output, progress to standard error.

Exit status: 0 all goals hold, 1 a goal was missed or a scenario failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import importlib
import ipaddress
import json
import logging
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from typing import Any

OUR_MODULE = "convelo"
PEER_MODULE = "tno.mpc.communication"

REPEATS = {
    "rtt": 2000,
    "seq": 4000,
    "conc": 6400,
    "asend": 2000,
    "b1m": 100,
    "b100m": 5,
    "b1g": 1,
    "np100m": 3,
    "frame": 3,
    "a2a": 20,
}
SCENARIOS = [*REPEATS, "rust"]
SIZES = {"b1m": 10**6, "b100m": 10**8, "b1g": 2**30, "np100m": 10**8}
FRAME_ROWS = 2_000_000
SMALL = b"m" * 100
IN_FLIGHT = 64
PARTIES_ALL_TO_ALL = 10
ALL_TO_ALL_BYTES = 100_000
SECONDS_PER_RUN = 300.0
SECONDS_TO_START = 60.0
MEMORY_ALLOWED_MIB = SIZES["b1g"] / 2**20 * 1.1 + 32


# One party


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory_mib(field: str) -> float:
    """``VmRSS`` or ``VmHWM``; getrusage's peak would start at the parent process's."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


class Party:
    """A pool that knows every other party as ``p<index>``."""

    def __init__(self, module: str, me: int, ports: list[int], certificates: str | None) -> None:
        self.pool_class = importlib.import_module(module).Pool
        # Of ours, a message larger than the mailbox is only accepted by those who ask for it.
        self.limits = {"message_limit": 2 * SIZES["b1g"]} if module == OUR_MODULE else {}
        self.me, self.ports, self.certificates = me, ports, certificates

    def _file(self, name: str) -> str:
        assert self.certificates is not None
        return os.path.join(self.certificates, name)

    async def start(self) -> Any:
        tls = {}
        if self.certificates:
            tls = {
                "key": self._file(f"party_{self.me}.pem"),
                "cert": self._file(f"party_{self.me}.crt"),
                "ca_cert": self._file("ca.crt"),
            }
        pool = self.pool_class(**tls, **self.limits)
        pool.add_http_server(port=self.ports[self.me], addr="127.0.0.1")
        for index, port in enumerate(self.ports):
            if index != self.me:
                known_by = {"cert": self._file(f"party_{index}.crt")} if self.certificates else {}
                pool.add_http_client(f"p{index}", "127.0.0.1", port=port, **known_by)
        deadline = time.monotonic() + SECONDS_TO_START
        for port in self.ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 0.3).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        return pool


class Pair:
    """A scenario of two parties. Party 0 sends, party 1 receives."""

    def __init__(self, role: int, pool: Any, count: int) -> None:
        self.sends = role == 0
        self.peer = "p1" if self.sends else "p0"
        self.pool, self.count = pool, count
        self.result: dict[str, Any] = {}

    async def run(self, scenario: str) -> dict[str, Any]:
        self._import(scenario)
        data = self._made(scenario) if self.sends else None
        if self.sends:
            await self.pool.send(self.peer, "go", "go")
            await self.pool.recv(self.peer, "going")
        else:
            await self.pool.recv(self.peer, "go")
            await self.pool.send(self.peer, "going", "going")
        self.result["before_mib"] = memory_mib("VmRSS")
        self._cpu, self._clock = cpu_seconds(), time.perf_counter()
        if scenario == "rtt":
            await self._round_trips()
        elif self.sends:
            await self._send_all(scenario, data)
            await self.pool.recv(self.peer, "done")
        else:
            await self._receive_all(scenario)
            await self.pool.send(self.peer, 1, "done")
        self.result["wall"] = time.perf_counter() - self._clock
        self.result["cpu"] = cpu_seconds() - self._cpu
        return self.result

    def _import(self, scenario: str) -> None:
        """Imports what a program with such values would have imported long before."""
        needed = {"np100m": ["numpy"], "frame": ["numpy", "pandas", "pyarrow"]}
        for module in needed.get(scenario, []):
            importlib.import_module(module)

    def _made(self, scenario: str) -> Any:
        if scenario == "np100m":
            import numpy

            return numpy.arange(SIZES[scenario] // 8, dtype=numpy.float64)
        if scenario == "frame":
            import numpy
            import pandas

            numbers = numpy.arange(FRAME_ROWS)
            texts = [f"name {number % 1000}" for number in range(FRAME_ROWS)]
            return pandas.DataFrame({"id": numbers, "score": numbers * 0.5, "name": texts})
        if scenario in SIZES:
            block = os.urandom(1 << 20)
            whole, rest = divmod(SIZES[scenario], len(block))
            return block * whole + block[:rest] if rest else block * whole
        return SMALL

    async def _round_trips(self) -> None:
        times = []
        for i in range(self.count):
            if self.sends:
                began = time.perf_counter()
                await self.pool.send(self.peer, "ping", f"a{i}")
                await self.pool.recv(self.peer, f"b{i}")
                times.append(time.perf_counter() - began)
            else:
                await self.pool.recv(self.peer, f"a{i}")
                await self.pool.send(self.peer, "pong", f"b{i}")
        if self.sends:
            self.result["shortest"] = min(times)

    async def _send_all(self, scenario: str, data: Any) -> None:
        send, peer = self.pool.send, self.peer
        if scenario == "conc":
            for first in range(0, self.count, IN_FLIGHT):
                ids = range(first, min(self.count, first + IN_FLIGHT))
                await asyncio.gather(*(send(peer, data, f"s{i}") for i in ids))
        elif scenario == "asend":
            for i in range(self.count):
                self.pool.asend(peer, data, f"s{i}")
        else:
            for i in range(self.count):
                await send(peer, data, f"s{i}")

    async def _receive_all(self, scenario: str) -> None:
        recv, peer = self.pool.recv, self.peer
        kinds = set()
        length = 0
        for i in range(self.count):
            data = await recv(peer, f"s{i}")
            if scenario in ("seq", "conc", "asend") and data != SMALL:
                raise AssertionError(f"message s{i} arrived changed")
            kinds.add(type(data).__name__)
            length = len(data)
            del data
        self.result["arrived"] = {"types": sorted(kinds), "length": length}


async def all_to_all(role: int, ports: list[int], pool: Any, rounds: int) -> dict[str, Any]:
    names = [f"p{index}" for index in range(len(ports)) if index != role]
    data = b"z" * ALL_TO_ALL_BYTES
    await asyncio.gather(*(pool.send(name, 0, "ready") for name in names))
    await pool.recv_all(names, "ready")
    before = memory_mib("VmRSS")
    cpu, clock = cpu_seconds(), time.perf_counter()
    for number in range(rounds):
        await asyncio.gather(*(pool.send(name, data, f"r{number}") for name in names))
        received = await pool.recv_all(names, f"r{number}")
        if len(received) != len(names) or any(len(m) != len(data) for _, m in received):
            raise AssertionError(f"round {number} is incomplete")
    return {
        "wall": time.perf_counter() - clock,
        "cpu": cpu_seconds() - cpu,
        "before_mib": before,
    }


async def party(options: argparse.Namespace) -> dict[str, Any]:
    ports = [int(port) for port in options.ports.split(",")]
    pool = await Party(options.module, options.role, ports, options.certificates).start()
    if options.scenario == "a2a":
        result = await all_to_all(options.role, ports, pool, options.count)
    else:
        result = await Pair(options.role, pool, options.count).run(options.scenario)
    result["peak_mib"] = memory_mib("VmHWM")
    await asyncio.sleep(0.2)
    await pool.shutdown()
    return result


# All parties of one run


@dataclasses.dataclass
class Side:
    """One side that runs a scenario: an interpreter and the module it imports."""

    name: str
    python: str
    module: str
    path: str | None = None


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for open_socket in sockets:
        open_socket.bind(("127.0.0.1", 0))
    ports = [int(open_socket.getsockname()[1]) for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports


def run(
    side: Side, scenario: str, count: int, certificates: str | None
) -> list[dict[str, Any]] | str:
    """What each party measured, or why there are no figures."""
    parties = PARTIES_ALL_TO_ALL if scenario == "a2a" else 2
    command = [side.python, os.path.abspath(__file__), "--party", "--module", side.module]
    command += ["--ports", ",".join(map(str, free_ports(parties)))]
    command += ["--scenario", scenario, "--count", str(count)]
    if certificates:
        command += ["--certificates", certificates]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    if side.path:
        environment["PYTHONPATH"] = side.path
    processes = [
        subprocess.Popen(
            [*command, "--role", str(role)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for role in range(parties)
    ]
    watch = threading.Timer(SECONDS_PER_RUN, lambda: [process.kill() for process in processes])
    watch.start()
    results: list[dict[str, Any]] = []
    problem = ""
    # Killing one party closes the others' pipes, so none of them can fill up while another is read.
    outputs: list[tuple[str, str] | None] = [None] * parties

    def collect(role: int) -> None:
        outputs[role] = processes[role].communicate()
        if processes[role].returncode != 0:
            for other in processes:
                if other.poll() is None:
                    other.kill()

    readers = [threading.Thread(target=collect, args=(role,)) for role in range(parties)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    watch.cancel()
    for role, (process, output) in enumerate(zip(processes, outputs, strict=True)):
        said, complained = output or ("", "")
        lines = [line for line in said.splitlines() if line.startswith("RESULT ")]
        if process.returncode == 0 and lines:
            results.append(json.loads(lines[0].removeprefix("RESULT ")))
        elif process.returncode is not None and process.returncode > 0 or not problem:
            last = complained.strip().splitlines()[-1:] or ["it said nothing"]
            problem = f"{side.name}, party {role}: exit status {process.returncode}: {last[0]}"
    return problem or results


def make_certificates(directory: pathlib.Path) -> None:
    """A test authority whose name begins with its CN, as the genuine package requires."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def write(stem: str, key: Any, certificate: x509.Certificate) -> None:
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (directory / f"{stem}.pem").write_bytes(private)
        public = certificate.public_bytes(serialization.Encoding.PEM)
        (directory / f"{stem}.crt").write_bytes(public)

    now = datetime.datetime.now(datetime.UTC)

    def builder(subject: str, serial: int, key: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named("pool-bench-ca"))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )

    authority = ec.generate_private_key(ec.SECP256R1())
    signing = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    own = builder("pool-bench-ca", 1, authority)
    own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    write("ca", authority, own.add_extension(signing, critical=True).sign(authority, hashes.SHA256()))
    usages = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    places = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    for index in range(PARTIES_ALL_TO_ALL):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            builder(f"party{index}", 1000 + index, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(places), critical=False)
        )
        write(f"party_{index}", key, leaf.sign(authority, hashes.SHA256()))


# The table


@dataclasses.dataclass
class Row:
    """One line: what it is, both figures, and its goal, if it has one."""

    name: str
    ours: float | None
    peer: float | None
    unit: str
    goal: str | None = None
    holds: bool | None = None

    @property
    def ratio(self) -> float | None:
        return self.peer / self.ours if self.peer is not None and self.ours else None

    def at_least(self, times: float) -> Row:
        self.goal = f"ratio >= {times:g}"
        self.holds = self.ratio is not None and self.ratio >= times
        return self

    def at_most(self, limit: float) -> Row:
        self.goal = f"ours <= {limit:.4g} {self.unit}"
        self.holds = self.ours is not None and self.ours <= limit
        return self

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ours": self.ours,
            "peer": self.peer,
            "unit": self.unit,
            "ratio": self.ratio,
            "goal": self.goal,
            "holds": self.holds,
        }


# CPU per message or per 100 MB: factor, unit, and how many times less it must be.
CPU_ROWS = {
    "rtt": ("CPU per round trip", 1e6, "us", None),
    "seq": ("CPU per message", 1e6, "us", 15),
    "conc": ("CPU per message", 1e6, "us", 40),
    "asend": ("CPU per message", 1e6, "us", None),
    "b1m": ("CPU per message", 1e3, "ms", None),
    "b100m": ("CPU per message", 1e3, "ms", 5),
    "b1g": ("CPU per message", 1e3, "ms", None),
    "np100m": ("CPU per message", 1e3, "ms", 50),
    "frame": ("CPU per message", 1e3, "ms", 2),
    "a2a": ("CPU per round, all parties", 1e3, "ms", None),
}

Runs = list[list[dict[str, Any]]]


def rows_of(prefix: str, scenario: str, count: int, ours: Runs, peer: Runs) -> list[Row]:
    what, factor, unit, times = CPU_ROWS[scenario]

    def mean(runs: Runs, value: Any) -> float:
        return statistics.fmean(value(parties) for parties in runs)

    def cpu(role: int | None) -> Any:
        chosen = slice(None) if role is None else slice(role, role + 1)
        return lambda parties: sum(p["cpu"] for p in parties[chosen]) / count * factor

    def row(name: str, unit: str, value: Any) -> Row:
        return Row(f"{prefix} {scenario}: {name}", mean(ours, value), mean(peer, value), unit)

    main = row(what, unit, cpu(None))
    rows = [main.at_least(times) if times else main]
    if scenario != "a2a" and scenario != "rtt":
        rows += [row("of which the sender's", unit, cpu(0)), row("of which the receiver's", unit, cpu(1))]
    if scenario == "rtt":
        shortest = row("shortest round trip", "us", lambda parties: parties[0]["shortest"] * 1e6)
        rows.append(shortest)
    rows.append(row("wall", "s", lambda parties: max(p["wall"] for p in parties)))
    if scenario in ("b100m", "b1g", "np100m"):
        for role, name in enumerate(("sender", "receiver")):
            peak = row(f"{name}'s peak memory", "MiB", lambda parties, r=role: parties[r]["peak_mib"])
            rows.append(peak.at_most(MEMORY_ALLOWED_MIB) if scenario == "b1g" else peak)
            before = row(
                f"{name}'s memory before", "MiB", lambda parties, r=role: parties[r]["before_mib"]
            )
            rows.append(before)
    return rows


def rust_rows(program: str, scale: float) -> list[Row]:
    """What ``throughput`` prints: one JSON object per line with name, ours, tcp, unit and goal."""
    command = [program, "--scale", str(scale)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS_PER_RUN, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program}: exit status {done.returncode}: {done.stderr.strip()}")
    rows = []
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            said = json.loads(line)
            row = Row(f"rust {said['name']}", said["ours"], said["tcp"], said["unit"])
            if said.get("goal") is not None:
                row.goal = f"ours <= {said['goal']:g} x bare TCP"
                row.holds = said["ours"] <= said["goal"] * said["tcp"]
            rows.append(row)
    if not rows:
        raise RuntimeError(f"{program} printed no figures")
    return rows


def figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def table(rows: list[Row]) -> str:
    head = ["name", "ours", "peer", "unit", "ratio", "goal", "holds"]
    lines = [head] + [
        [
            row.name,
            figure(row.ours),
            figure(row.peer),
            row.unit,
            figure(row.ratio),
            row.goal or "",
            "" if row.holds is None else ("yes" if row.holds else "NO"),
        ]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    right = (1, 2, 4)
    text = []
    for line in lines:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def compare(options: argparse.Namespace, wanted: list[str]) -> tuple[list[Row], list[str]]:
    sides = [
        Side("ours", sys.executable, OUR_MODULE, options.ours_path),
        Side("peer", options.peer, PEER_MODULE),
    ]
    rows: list[Row] = []
    failed: list[str] = []
    modes = [mode for mode in ("plain", "tls") if getattr(options, mode)] or ["plain", "tls"]
    with tempfile.TemporaryDirectory(prefix="pool-bench-") as directory:
        if "tls" in modes:
            make_certificates(pathlib.Path(directory))
        for mode in modes:
            for scenario in (name for name in wanted if name != "rust"):
                count = max(1, int(REPEATS[scenario] * options.scale))
                runs: list[Runs] = [[], []]
                problems = []
                for number in range(options.rounds):
                    for side, done in zip(sides, runs, strict=True):
                        print(
                            f"{mode} {scenario} {number + 1}/{options.rounds} {side.name} ...",
                            file=sys.stderr,
                            flush=True,
                        )
                        result = run(side, scenario, count, directory if mode == "tls" else None)
                        if isinstance(result, str):
                            problems.append(result)
                            break
                        done.append(result)
                    if problems:
                        break
                if problems:
                    failed.append(f"{mode} {scenario}: {problems[0]}")
                    rows.append(Row(f"{mode} {scenario}", None, None, "", "it runs", False))
                else:
                    rows += rows_of(mode, scenario, count, *runs)
                    arrived = [
                        f"{side.name} {done[0][1]['arrived']['types'][0]}"
                        for side, done in zip(sides, runs, strict=True)
                        if "arrived" in done[0][1]
                    ]
                    if scenario in ("np100m", "frame") and arrived:
                        print(f"{mode} {scenario} arrives as: {', '.join(arrived)}", file=sys.stderr)
    if "rust" in wanted and options.rust:
        print("rust ...", file=sys.stderr, flush=True)
        try:
            rows += rust_rows(options.rust, options.scale)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            failed.append(f"rust: {error}")
            rows.append(Row("rust", None, None, "", "it runs", False))
    return rows, failed


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours-path", help="directory that contains our package")
    parser.add_argument("--peer", help="interpreter with tno.mpc.communication 4.x")
    parser.add_argument("--rust", help="the Rust half: the example 'throughput' of convelo-pool")
    parser.add_argument("--json", type=pathlib.Path, help="also write the table to this file")
    parser.add_argument("--only", help="comma-separated scenarios")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of messages")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each side, in turn")
    parser.add_argument("--plain", action="store_true", help="only without TLS")
    parser.add_argument("--tls", action="store_true", help="only with mutual TLS")
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    for name, kind in (("role", int), ("count", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    for name in ("module", "ports", "scenario", "certificates"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    if options.party:
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        print("RESULT " + json.dumps(asyncio.run(party(options))), flush=True)
        return 0
    if not options.peer:
        parser.error("--peer is required; cargo xtask bench pool supplies it")
    if options.scale <= 0 or options.rounds < 1:
        parser.error("--scale and --rounds must be above 0")
    wanted = options.only.split(",") if options.only else SCENARIOS
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario '{unknown[0]}'; expected one of: {', '.join(SCENARIOS)}")
    rows, failed = compare(options, wanted)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([row.json() for row in rows], indent=1) + "\n")
    print(table(rows))
    missed = [row.name for row in rows if row.holds is False]
    for problem in failed:
        print(f"failed: {problem}", file=sys.stderr)
    if missed:
        print(f"missed: {'; '.join(missed)}")
    return int(bool(missed or failed))


if __name__ == "__main__":
    sys.exit(main())
