#!/usr/bin/env python3
"""The intersection without an enclave compared with SecretFlow's and OpenMined's.

``cargo xtask bench psi`` prepares everything and runs this. By hand, in an environment that has spu and
openmined.psi::

    psi_bench.py --convelo PROGRAM [--items N[,N...]] [--rounds N] [--only NAME[,NAME...]] [--json FILE]

All sides read the same two CSV files of N ids of 16 characters, half of which are common, and one party
gets the ids in common. Each side is two processes on loopback, each on a core of its own, in a network
namespace that has nothing else in it; sides take turns.

Sides
  convelo vole, convelo ecdh       ours, with mutual TLS
  rr22, rr22_low, kkrt             SecretFlow (spu), without TLS
  ecdh                             SecretFlow's default, which does not hash to the curve
  ecdh_ell2                        the same with the hash of RFC 9380; only with --only, as it takes minutes
  openmined                        ECDH on P-256; only with --only

CPU is user and system time of both processes from start to end; "without start-up" leaves out what the
peer's interpreter and imports take, by the peer's own account, and of ours nothing. Bytes are all that
went over loopback, with TCP and IP headers, both directions. Peak memory is that of the larger process.
Of several rounds the least of each figure is shown. A row's ``ratio`` is ours / peer. Wall time on
a machine that does other things says little. The table goes to standard output, progress to standard
error.

Which commit of SecretFlow's PSI spu 0.9.5 carries is not known: constant hash seeds of RR22 were fixed in
August 2025 and a decoder in December 2025 (secretflow/psi 333, 371).

Exit status: 0 all goals hold, 1 a goal was missed or a run failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import pathlib
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from typing import NoReturn

PARTIES = ("alice", "bob")

OURS = ("convelo vole", "convelo ecdh")
PEERS = ("rr22", "rr22_low", "kkrt", "ecdh", "ecdh_ell2", "openmined")
SLOW = ("ecdh_ell2", "openmined")

# Which of ours is compared with which peer, and the most that its CPU may be beside that of the peer
# without start-up.
COMPARED = {
    "rr22": ("convelo vole", 1 / 8),
    "rr22_low": ("convelo vole", 1 / 6),
    "kkrt": ("convelo vole", None),
    "ecdh": ("convelo ecdh", 1 / 1.3),
    "ecdh_ell2": ("convelo ecdh", 1 / 30),
    "openmined": ("convelo ecdh", 1 / 12),
}

HERE = pathlib.Path(__file__).resolve().parent

# Set in the process that runs in a network namespace of its own.
INSIDE = "CONVELO_BENCH_NAMESPACE"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def enter_namespace() -> None:
    """Runs this program again in a network namespace of its own, with loopback up; goes on if it is there."""
    if INSIDE not in os.environ:
        unshare = [shutil.which("unshare") or "unshare", "-n" if os.geteuid() == 0 else "-Urn"]
        if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
            say("no network namespace can be made: bytes include other traffic on loopback")
            return
        os.environ[INSIDE] = "1"
        os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])
    get_flags, set_flags, up_and_running = 0x8913, 0x8914, 0x41
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, get_flags, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1] | up_and_running
        fcntl.ioctl(control, set_flags, struct.pack("16sh14x", b"lo", flags))


def loopback_bytes() -> int:
    """Everything sent on loopback so far."""
    return int(re.search(r"^ *lo:(?: *\d+){8} +(\d+)", pathlib.Path("/proc/net/dev").read_text(), re.M)[1])


def write_ids(path: pathlib.Path, first: int, count: int, seed: int) -> None:
    """Numbers from ``first`` on as 16 characters, in an order of their own. The same number gives the same id."""
    mixed = random.Random(seed)
    stride = count * 5 // 8 + mixed.randrange(count // 8 + 1)
    while math.gcd(stride, count) != 1:
        stride += 1
    # An odd factor permutes the numbers below 2^64.
    factor, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    with path.open("w") as file:
        file.write("id\n")
        for at in range(0, count, 1 << 16):
            chunk = [first + place * stride % count for place in range(at, min(at + (1 << 16), count))]
            mixed.shuffle(chunk)
            file.write("".join(f"{number * factor & mask:016x}\n" for number in chunk))


def rows_of(path: pathlib.Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b"")) - 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pair(directory: pathlib.Path, commands: list[list[str]]) -> tuple[dict[str, float], list[str]]:
    """Runs both parties, each on its core. Returns the figures, and what they print."""
    cores = sorted(os.sched_getaffinity(0))
    before, begun = loopback_bytes(), time.monotonic()
    runs = [
        subprocess.Popen(
            ["taskset", "-c", str(cores[number % len(cores)]), *command], cwd=directory,
            stdout=(directory / f"{party}.out").open("wb"), stderr=(directory / f"{party}.err").open("wb"),
        )
        for number, (party, command) in enumerate(zip(PARTIES, commands))
    ]
    waiting = {run.pid: run for run in runs}
    cpu, peak = 0.0, 0
    while waiting:
        pid, status, used = os.wait4(-1, 0)
        run = waiting.pop(pid)
        run.returncode = os.waitstatus_to_exitcode(status)
        cpu += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss * 1024)
        if run.returncode != 0:
            for other in waiting.values():
                other.terminate()
            errors = "\n".join((directory / f"{party}.err").read_text()[-2000:] for party in PARTIES)
            sys.exit(f"{' '.join(run.args[3:8])} failed with {run.returncode}:\n{errors}")
    wall, sent = time.monotonic() - begun, loopback_bytes() - before
    figures = {"cpu": cpu, "work": cpu, "peak": peak, "bytes": sent, "wall": wall}
    return figures, [(directory / f"{party}.out").read_text() for party in PARTIES]


class Ours:
    """The two parties' keys."""

    def __init__(self, program: str, directory: pathlib.Path) -> None:
        self.program, self.directory = program, directory
        self.keys = {party: self.keygen(party) for party in PARTIES}

    def keygen(self, party: str) -> str:
        done = subprocess.run(
            [self.program, "keygen", party], cwd=self.directory, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"convelo keygen failed:\n{done.stderr}")
        return re.search(r"sha256:[0-9a-f]{64}", done.stdout + done.stderr)[0]

    def commands(self, protocol: str, items: int) -> list[list[str]]:
        """Writes the job of a protocol, and returns what the parties run. The first gets the result."""
        parties = "".join(f'\n[[party]]\nname = "{party}"\nkey = "{key}"\n' for party, key in self.keys.items())
        (self.directory / f"{protocol}.toml").write_text(
            f'version = 1\nname = "{protocol}"\nmode = "{protocol}"\ndeadline = "1h"\nmaximum_keys = {items}\n'
            '\n[[key]]\nname = "id"\nnormalise = ["trim"]\n'
            f'\n[reveal]\nwhat = "intersection"\nto = ["{PARTIES[0]}"]\n{parties}'
        )
        address = f"127.0.0.1:{free_port()}"
        first, second = PARTIES
        run = [self.program, "run", f"{protocol}.toml", "--quiet", "--as"]
        return [
            [*run, first, "--input", f"{first}.csv", "--key", "id", "--output", "matched.csv", "--listen", address],
            [*run, second, "--input", f"{second}.csv", "--key", "id", "--peer", f"{first}={address}"],
        ]

    def measure(self, side: str, items: int) -> dict[str, float]:
        output = self.directory / "matched.csv"
        figures, _ = pair(self.directory, self.commands(side.split()[1], items))
        figures["common"] = rows_of(output)
        output.unlink()
        return figures


def measure_peer(side: str, directory: pathlib.Path) -> dict[str, float]:
    script = "party_openmined.py" if side == "openmined" else "party_spu.py"
    ports = [str(free_port()), str(free_port())]
    commands = [
        [sys.executable, str(HERE / script), side, str(number), *ports, f"{party}.csv"]
        for number, party in enumerate(PARTIES)
    ]
    figures, printed = pair(directory, commands)
    # Libraries print lines of their own, before and after.
    told = [json.loads(next(line for line in text.splitlines() if line.startswith('{"cpu"'))) for text in printed]
    figures["work"] = sum(party["cpu"] for party in told)
    figures["common"] = told[0]["common"]
    return figures


class Rows:
    """The table. A row without a goal counts as met."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, name: str, ours: float, peer: float, unit: str, goal: float | None = None) -> None:
        ratio = ours / peer if peer else float(ours)
        self.rows.append({"name": name, "ours": round(ours, 4), "peer": round(peer, 4), "unit": unit,
                          "ratio": round(ratio, 3), "goal": goal, "holds": goal is None or ratio <= goal})

    def finish(self, file: str | None) -> NoReturn:
        """Prints the table, writes it to a file if one is named, and exits."""
        print(f"{'':60} {'ours':>10} {'peer':>10} {'unit':5} {'ratio':>7} {'goal':>6}")
        for row in self.rows:
            goal = f"{'':6}" if row["goal"] is None else f"{row['goal']:>6.3f}"
            verdict = "" if row["goal"] is None else "holds" if row["holds"] else "MISSED"
            print(f"{row['name']:60} {row['ours']:>10.4g} {row['peer']:>10.4g} {row['unit']:5} "
                  f"{row['ratio']:>7.3f} {goal} {verdict}".rstrip())
        if file:
            pathlib.Path(file).write_text(json.dumps(self.rows, indent=2) + "\n")
        sys.exit(0 if all(row["holds"] for row in self.rows) else 1)


def compare(rows: Rows, items: int, runs: dict[str, list[dict[str, float]]]) -> None:
    least = {side: {what: min(run[what] for run in done) for what in done[0]} for side, done in runs.items()}
    for peer, (ours, goal) in COMPARED.items():
        if peer not in least:
            continue
        # Without ours, the peer alone.
        nothing = {what: 0.0 for what in least[peer]}
        us, them = least.get(ours, nothing), least[peer]
        name = f"{items:,} ids, {ours.split()[1]} beside {peer}"
        rows.add(f"{name}, CPU without start-up", us["work"], them["work"], "s", goal)
        rows.add(f"{name}, CPU", us["cpu"], them["cpu"], "s")
        rows.add(f"{name}, sent", us["bytes"] / 1e6, them["bytes"] / 1e6, "MB")
        rows.add(f"{name}, peak memory", us["peak"] / 2**20, them["peak"] / 2**20, "MiB")
        rows.add(f"{name}, wall", us["wall"], them["wall"], "s")


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--convelo", help="without it, the peers alone are measured")
    parser.add_argument("--items", type=numbers, default=[1 << 16, 1 << 20])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--json")
    options = parser.parse_args()
    known = [*(OURS if options.convelo else ()), *PEERS]
    chosen = options.only or [side for side in known if side not in SLOW]
    for side in chosen:
        if side not in known:
            parser.error(f"there is no side {side!r}; there are {', '.join(known)}")
    enter_namespace()
    rows = Rows()
    for items in options.items:
        with tempfile.TemporaryDirectory(prefix="convelo-bench-") as name:
            directory = pathlib.Path(name)
            say(f"writing two tables of {items:,} ids")
            for number, party in enumerate(PARTIES):
                write_ids(directory / f"{party}.csv", number * (items // 2), items, number)
            ours = Ours(os.path.abspath(options.convelo), directory) if options.convelo else None
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in chosen}
            for number in range(options.rounds):
                for side, done in runs.items():
                    found = ours.measure(side, items) if side in OURS else measure_peer(side, directory)
                    say(f"round {number + 1}: {side} {found}")
                    if found["common"] != items - items // 2:
                        sys.exit(f"the result of {side} is wrong: {found['common']}")
                    done.append(found)
        compare(rows, items, runs)
    rows.finish(options.json)


if __name__ == "__main__":
    main()
