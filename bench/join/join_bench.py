#!/usr/bin/env python3
"""The attested join beside DuckDB, which intersects the same files in the clear.

``cargo xtask bench join`` prepares everything and runs this. By hand::

    join_bench.py --convelo PROGRAM --engine PROGRAM [--keys N] [--rounds N] [--json FILE]

Both sides read the same two CSV files of N ids of 16 characters, half of which are common, and write
what they have in common, ours to two files, one for each provider. Ours are a service on a simulated
platform and two providers, three processes that talk TLS, verify evidence and join obliviously; DuckDB
is one process with two threads. They run in turn.

CPU is user and system time of all processes from start to end, without the service's start; peak
memory is the largest of one process. A row's ``ratio`` is ours / peer, and for rates and memory ours /
goal. The table goes to standard output, progress to standard error.

Exit status: 0 all goals hold, 1 a goal was missed or a run failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

PARTIES = ("alice", "bob")

# How many services a job is spread over, beside one.
SERVICES = (2, 4)

# MiB for a provider whose table does not fit: 10,000,000 rows take twice as much.
SMALL_MEMORY = 96

DUCKDB = """
import duckdb, sys
first, second, output = sys.argv[1:4]
connection = duckdb.connect(config={"threads": 2})
connection.execute("set enable_progress_bar = false")
connection.execute(
    f"copy (select id from read_csv('{first}', columns={{'id': 'varchar'}}) intersect "
    f"select id from read_csv('{second}', columns={{'id': 'varchar'}})) to '{output}'"
)
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_ids(path: pathlib.Path, first: int, count: int, seed: int) -> None:
    """Numbers from ``first`` on as 16 characters, in random order. The same number is the same id."""
    numbers = list(range(first, first + count))
    random.Random(seed).shuffle(numbers)
    # An odd factor permutes the numbers below 2^64.
    factor, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    with path.open("w") as file:
        file.write("id\n")
        for at in range(0, count, 1 << 16):
            chunk = numbers[at : at + (1 << 16)]
            file.write("".join(f"{number * factor & mask:016x}\n" for number in chunk))


def lines(path: pathlib.Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def usage_of(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Waits. Gives processor seconds and peak memory in bytes."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{process.args[:3]!r} failed with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def cpu_of(pid: int) -> float:
    """Processor seconds that a running process has used, all threads, to the nanosecond."""
    # What clock_getcpuclockid(3) gives for another process on Linux.
    return time.clock_gettime((~pid << 3) | 2)


def memory_of(pid: int, field: str) -> int:
    """A field of the process's status in bytes: VmHWM is the most so far, VmRSS what it has now."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) * 1024


class Ours:
    """A service, and the providers' keys and job."""

    def __init__(self, program: str, directory: pathlib.Path, keys: int) -> None:
        self.program, self.directory = program, directory
        self.services: list[subprocess.Popen[bytes]] = []
        self.addresses: list[str] = []
        self.run("simulator", "new", "platform")
        self.keys = {party: self.keygen(party) for party in PARTIES}
        (directory / "collateral.json").write_bytes((directory / "platform/collateral.json").read_bytes())
        self.serve()
        self.write_job("job.toml", self.keys, keys)

    @property
    def address(self) -> str:
        return self.addresses[0]

    @property
    def service(self) -> subprocess.Popen[bytes]:
        return self.services[0]

    def serve(self) -> None:
        """Starts one service more."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        log = self.directory / f"service-{len(self.services)}.log"
        self.services.append(subprocess.Popen(
            [self.program, "serve", "--listen", address, "--simulated", "platform", "--memory", "16G"],
            cwd=self.directory, stdout=subprocess.DEVNULL, stderr=log.open("wb"),
        ))
        self.addresses.append(address)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(tuple(address.split(":")), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit("the service does not listen")
                time.sleep(0.05)

    def keygen(self, party: str) -> str:
        """Makes a party's key; its fingerprint."""
        return re.search(r"sha256:[0-9a-f]{64}", self.run("keygen", party))[0]

    def write_job(self, file: str, parties: dict[str, str], keys: int) -> None:
        """A job named like its file, of parties with these key fingerprints and so many ids at most."""
        arguments = [word for party, key in parties.items() for word in ("--party", f"{party}={key}")]
        self.run("init", file, "--policy", "platform/policy.toml", "--service", self.address, *arguments)
        path = self.directory / file
        text = path.read_text()
        text = re.sub(r'(?m)^name = ".*"', f'name = "{path.stem}"', text, count=1)
        text = re.sub(r"(?m)^maximum_keys = .*", f"maximum_keys = {keys}", text)
        text = re.sub(r'(?m)^name = "email"', 'name = "id"', text)
        text = re.sub(r"(?m)^normalise = .*", 'normalise = ["trim"]', text)
        path.write_text(text)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.program, *arguments], cwd=self.directory, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"convelo {' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout + done.stderr

    def write_job_of_services(self, file: str, services: int) -> None:
        """As ``job.toml``, over so many services."""
        while len(self.services) < services:
            self.serve()
        addresses = ", ".join(f'"{address}"' for address in self.addresses[:services])
        text = (self.directory / "job.toml").read_text()
        text = re.sub(r"(?m)^address = .*", f"addresses = [{addresses}]", text)
        text = re.sub(r'(?m)^name = ".*"', f'name = "{pathlib.Path(file).stem}"', text, count=1)
        (self.directory / file).write_text(text)

    def join(self, *options: str, job: str = "job.toml") -> dict[str, float]:
        pids = [service.pid for service in self.services]
        before, begun = sum(map(cpu_of, pids)), time.monotonic()
        runs = [
            subprocess.Popen(
                [self.program, "run", job, "--as", party, "--input", f"{party}.csv",
                 "--key", "id", "--output", f"{party}-matched.csv", "--quiet", *options],
                cwd=self.directory,
            )
            for party in PARTIES
        ]
        used = [usage_of(run) for run in runs]
        wall = time.monotonic() - begun
        service = sum(map(cpu_of, pids)) - before
        counts = {lines(self.directory / f"{party}-matched.csv") - 1 for party in PARTIES}
        self.clear()
        return {
            "wall": wall,
            "cpu": service + sum(cpu for cpu, _ in used),
            "service cpu": service,
            "provider cpu": sum(cpu for cpu, _ in used) / 2,
            "provider peak": max(peak for _, peak in used),
            "service peak": memory_of(self.service.pid, "VmHWM"),
            "common": counts.pop() if len(counts) == 1 else -1,
        }

    def upload(self, keys: int) -> float:
        """Processor seconds that the service takes to get and check one party's set: with the handshakes
        and the key agreement of both, without a join, because the other party stands still until then.
        """
        (self.directory / "few.csv").write_text("id\nonly-here\n")

        def start(party: str, table: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [self.program, "run", "job.toml", "--as", party, "--input", table, "--key", "id",
                 "--output", f"{party}-matched.csv"],
                cwd=self.directory, stderr=subprocess.PIPE, text=True,
            )

        def read_until(run: subprocess.Popen[str], words: str) -> None:
            if not any(words in line for line in run.stderr):
                sys.exit(f"{run.args[4]} ended and never said {words!r}")

        before = cpu_of(self.service.pid)
        whole, few = (start(party, table) for party, table in zip(PARTIES, [f"{PARTIES[0]}.csv", "few.csv"]))
        read_until(few, "waiting until all parties have read their tables")
        # Long before the other has read its table.
        time.sleep(0.05)
        few.send_signal(signal.SIGSTOP)
        try:
            read_until(whole, f"sent {keys:,} fingerprints")
            used, last = cpu_of(self.service.pid), 0.0
            while used - last > 0.001:
                time.sleep(0.2)
                used, last = cpu_of(self.service.pid), used
        finally:
            few.send_signal(signal.SIGCONT)
        for run in (whole, few):
            _, said = run.communicate()
            if run.returncode != 0:
                sys.exit(f"{run.args[4]} failed:\n{said}")
        if any(lines(self.directory / f"{party}-matched.csv") != 1 for party in PARTIES):
            sys.exit("a result is wrong: ids in common where there are none")
        self.clear()
        return used - before

    def clear(self) -> None:
        """Removes what runs have written."""
        for party in PARTIES:
            for result in self.directory.glob(f"{party}-matched.csv*"):
                result.unlink()

    def close(self) -> None:
        for service in self.services:
            service.terminate()
            service.wait(30)


def peer(directory: pathlib.Path) -> dict[str, float]:
    begun = time.monotonic()
    run = subprocess.Popen(
        [sys.executable, "-c", DUCKDB, "alice.csv", "bob.csv", "common.csv"], cwd=directory
    )
    cpu, peak = usage_of(run)
    wall = time.monotonic() - begun
    common = lines(directory / "common.csv") - 1
    return {"wall": wall, "cpu": cpu, "peak": peak, "common": common}


def print_rows(rows: list[dict[str, object]], file: str | None) -> None:
    """Prints the table, writes it to a file if one is named, and exits."""
    print(f"{'':54} {'ours':>10} {'peer':>10} {'unit':5} {'ratio':>7} {'goal':>6}")
    for entry in rows:
        print(f"{entry['name']:54} {entry['ours']:>10.4g} {entry['peer']:>10.4g} {entry['unit']:5} "
              f"{entry['ratio']:>7.3f} {entry['goal']:>6.3f} {'holds' if entry['holds'] else 'MISSED'}")
    if file:
        pathlib.Path(file).write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if all(entry["holds"] for entry in rows) else 1)


def engine(program: str, threads: int, sets: int, keys: int) -> dict[str, float]:
    done = subprocess.run(
        [program, str(sets), str(keys)], capture_output=True, text=True, check=True,
        env={**os.environ, "RAYON_NUM_THREADS": str(threads)},
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--convelo", required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    keys = options.keys
    rows: list[dict[str, object]] = []

    def row(name: str, ours: float, other: float, unit: str, goal: float) -> None:
        ratio = ours / other
        rows.append({"name": name, "ours": round(ours, 4), "peer": round(other, 4), "unit": unit,
                     "ratio": round(ratio, 3), "goal": goal, "holds": ratio <= goal})

    with tempfile.TemporaryDirectory(prefix="convelo-bench-") as name:
        directory = pathlib.Path(name)
        say(f"writing two tables of {keys:,} ids")
        # In processes of their own: the peak that the kernel tells of a child begins with what its
        # parent had.
        for arguments in [(directory / "alice.csv", 0, keys, 1), (directory / "bob.csv", keys // 2, keys, 2)]:
            writer = multiprocessing.get_context("spawn").Process(target=write_ids, args=arguments)
            writer.start()
            writer.join()
            if writer.exitcode != 0:
                sys.exit("the tables could not be written")
        ours, others = [], []
        side = Ours(os.path.abspath(options.convelo), directory, keys)
        try:
            for number in range(options.rounds):
                ours.append(side.join())
                others.append(peer(directory))
                say(f"round {number + 1}: ours {ours[-1]}")
                say(f"round {number + 1}: DuckDB {others[-1]}")
            for services in SERVICES:
                side.write_job_of_services(f"over-{services}.toml", services)
            spread: dict[int, list[dict[str, float]]] = {services: [] for services in (1, *SERVICES)}
            for number in range(options.rounds):
                for services, runs in spread.items():
                    job = "job.toml" if services == 1 else f"over-{services}.toml"
                    runs.append(side.join(job=job))
                    say(f"round {number + 1}, {services} services: ours {runs[-1]}")
            uploads = [side.upload(keys) for _ in range(options.rounds)]
            say(f"uploads: {uploads}")
            small = side.join("--memory", f"{SMALL_MEMORY}M")
            say(f"--memory {SMALL_MEMORY}M: ours {small}")
        finally:
            side.close()
    spread_runs = [run for runs in spread.values() for run in runs]
    wrong = [run for run in [*ours, *others, small, *spread_runs] if run["common"] != keys - keys // 2]
    if wrong:
        sys.exit(f"a result is wrong: {wrong}")

    def least(runs: list[dict[str, float]], what: str) -> float:
        return min(run[what] for run in runs)

    row("two CSV files to matched rows, wall", least(ours, "wall"), least(others, "wall"), "s", 1.0)
    row("two CSV files to matched rows, CPU", least(ours, "cpu"), least(others, "cpu"), "s", 1.0)
    row("a provider's peak memory, goal 400 MiB", least(ours, "provider peak") / 2**20, 400, "MiB", 1.0)
    row(f"a provider's peak memory with --memory {SMALL_MEMORY}M", small["provider peak"] / 2**20,
        SMALL_MEMORY, "MiB", 1.0)
    for services in SERVICES:
        row(f"{services} services beside one, CPU of all processes",
            least(spread[services], "cpu"), least(spread[1], "cpu"), "s", 1.1)
    row("an upload alone, the service's CPU per id, goal 25 ns", min(uploads) / keys * 1e9, 25, "ns", 1.0)
    row("the service's CPU per id", least(ours, "service cpu") / keys / 2 * 1e9, 25 + 30, "ns", 1.0)
    # In turn, like all that is compared: a neighbour on the machine takes from both.
    pairs = [(engine(options.engine, 1, 2, keys), engine(options.engine, 2, 2, keys)) for _ in range(5)]
    one, two = [list(runs) for runs in zip(*pairs)]
    row("the join alone, one thread, CPU, goal 30 ns an id",
        least(one, "join_cpu_seconds") / keys / 2 * 1e9, 30, "ns", 1.0)
    row("the join alone, two threads, wall beside one",
        least(two, "join_wall_seconds"), least(one, "join_wall_seconds"), "s", 1 / 1.7)
    row("memory of the join, goal 20 B a fingerprint and 64 MiB",
        least(one, "peak_bytes"), 20 * 2 * keys + 64 * 2**20, "B", 1.0)
    print_rows(rows, options.json)


if __name__ == "__main__":
    main()
