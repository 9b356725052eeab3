#!/usr/bin/env python3
"""The attested join compared with DuckDB, which joins the same files in the clear.

``cargo xtask bench join`` prepares everything and runs this. By hand::

    join_bench.py --convelo PROGRAM --engine PROGRAM --transfer PROGRAM --normalise PROGRAM
                  [--keys N[,N...]] [--rounds N] [--json FILE]

Both sides read the same two CSV files of N ids of 16 characters, half of which are common. Our side is a
service on a simulated platform and two providers: three processes that speak TLS, verify evidence and join
obliviously; each provider writes its own matched rows. DuckDB is one process with two threads that does
three things: the rows of both parties with two semi-joins, which is what ours does; the rows of one party
with one semi-join; the ids in common with INTERSECT. Our side and these three take turns.

With several N, all of this is done for each, and the end of the table shows how much faster than the
number of ids each side's time grows.

The service is compared with the least that the same work can cost, in the same run: an upload with
reading the same bytes from TLS and copying them once (``transfer_cost``), the join with a leaky radix
hash join on one thread (``engine_cost``), and the normalisation of a field with copying it
(``normalise_cost``).

CPU is user and system time of all processes from start to end, without starting the service; peak
memory is that of the largest process. A row's ``ratio`` is ours / peer, or ours / goal for memory; a row
without a goal is for information. The table goes to standard output, progress to standard error.

Exit status: 0 all goals hold, 1 a goal was missed or a run failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import math
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
from typing import NoReturn

PARTIES = ("alice", "bob")

# How many services a job is spread over, in addition to one.
SERVICES = (2, 4)

# MiB for a provider whose table does not fit: 10,000,000 rows need twice as much.
SMALL_MEMORY = 96

# DuckDB takes up to four fifths of the machine's memory; a provider takes 1 GiB unless it is told otherwise,
# which holds 48,000,000 rows.
LARGE_MEMORY = "4G"

# A pseudonym on the wire.
PSEUDONYM_BYTES = 16

# What order, digest and gRPC may add to an upload.
UPLOAD_GOAL = 3.0

# How many fields of each kind are normalised, and how long one may take, in nanoseconds.
NORMALISED_ROWS = 1_000_000
NORMALISE_GOALS = {"id": None, "email": 200, "phone_international": 1000, "phone_national": 1000}

FIRST, SECOND = (f"read_csv('{party}.csv', columns={{'id': 'varchar'}})" for party in PARTIES)

# What a person would write.
QUERIES = {
    "two semi-joins": [
        f"select a.* from {FIRST} a semi join {SECOND} b using (id)",
        f"select b.* from {SECOND} b semi join {FIRST} a using (id)",
    ],
    "one semi-join": [f"select a.* from {FIRST} a semi join {SECOND} b using (id)"],
    "INTERSECT": [f"select id from {FIRST} intersect select id from {SECOND}"],
}

DUCKDB = """
import duckdb, sys
connection = duckdb.connect(config={"threads": 2})
connection.execute("set enable_progress_bar = false")
for query, output in zip(sys.argv[1::2], sys.argv[2::2]):
    connection.execute(f"copy ({query}) to '{output}'")
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_ids(path: pathlib.Path, first: int, count: int, seed: int) -> None:
    """Numbers from ``first`` on as 16 characters, shuffled. The same number gives the same id."""
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


def lines(path: pathlib.Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def usage_of(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Waits for a process. Returns processor seconds and peak memory in bytes."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{process.args[:3]!r} failed with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def cpu_of(pid: int) -> float:
    """Processor seconds that a running process has used, all threads, to the nanosecond."""
    # What clock_getcpuclockid(3) returns for another process on Linux.
    return time.clock_gettime((~pid << 3) | 2)


def memory_of(pid: int, field: str) -> int:
    """A field of the process's status in bytes: VmHWM is the peak so far, VmRSS the current size."""
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
        """Starts one more service."""
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
        """Makes a party's key. Returns its fingerprint."""
        return re.search(r"sha256:[0-9a-f]{64}", self.run("keygen", party))[0]

    def write_job(self, file: str, parties: dict[str, str], keys: int) -> None:
        """Writes a job named after its file, for parties with these key fingerprints and at most this many ids."""
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
        """Like ``job.toml``, but over this many services."""
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
                [self.program, "run", job, "--as", party, "--insecure-simulated", "--input", f"{party}.csv",
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
                [self.program, "run", "job.toml", "--as", party, "--insecure-simulated", "--input", table, "--key", "id",
                 "--output", f"{party}-matched.csv"],
                cwd=self.directory, stderr=subprocess.PIPE, text=True,
            )

        def read_until(run: subprocess.Popen[str], words: str) -> None:
            if not any(words in line for line in run.stderr):
                sys.exit(f"{run.args[4]} ended and never said {words!r}")

        before = cpu_of(self.service.pid)
        whole, few = (start(party, table) for party, table in zip(PARTIES, [f"{PARTIES[0]}.csv", "few.csv"]))
        read_until(few, "waiting until all parties have read their tables")
        # Long before the other party has read its table.
        time.sleep(0.05)
        few.send_signal(signal.SIGSTOP)
        try:
            read_until(whole, f"sent {keys:,} pseudonyms")
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
            sys.exit("a result is wrong: it has ids in common, but there are none")
        self.clear()
        return used - before

    def clear(self) -> None:
        """Removes what the runs wrote."""
        for party in PARTIES:
            for result in self.directory.glob(f"{party}-matched.csv*"):
                result.unlink()

    def close(self) -> None:
        for service in self.services:
            service.terminate()
            service.wait(30)


def peer(directory: pathlib.Path, queries: list[str]) -> dict[str, float]:
    """One DuckDB process that runs all of these."""
    outputs = [f"duckdb-{number}.csv" for number in range(len(queries))]
    arguments = [word for pair in zip(queries, outputs) for word in pair]
    begun = time.monotonic()
    run = subprocess.Popen([sys.executable, "-c", DUCKDB, *arguments], cwd=directory)
    cpu, peak = usage_of(run)
    wall = time.monotonic() - begun
    counts = {lines(directory / output) - 1 for output in outputs}
    for output in outputs:
        (directory / output).unlink()
    return {"wall": wall, "cpu": cpu, "peak": peak, "common": counts.pop() if len(counts) == 1 else -1}


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


def figures(program: str, *arguments: object, threads: int | None = None) -> dict[str, float]:
    """What one of our programs prints as JSON."""
    environment = dict(os.environ) if threads is None else {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        sys.exit(f"{program} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def write_tables(directory: pathlib.Path, keys: int) -> None:
    say(f"writing two tables of {keys:,} ids")
    # In separate processes: the peak that the kernel reports for a child starts at what its parent
    # had.
    writers = [
        multiprocessing.get_context("spawn").Process(
            target=write_ids, args=(directory / f"{party}.csv", number * (keys // 2), keys, number)
        )
        for number, party in enumerate(PARTIES)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        if writer.exitcode != 0:
            sys.exit("the tables could not be written")


def least(runs: list[dict[str, float]], what: str) -> float:
    return min(run[what] for run in runs)


def whole_jobs(
    side: Ours, directory: pathlib.Path, keys: int, rounds: int
) -> tuple[list[dict[str, float]], dict[str, list[dict[str, float]]]]:
    """Runs ours and DuckDB's three, in turn."""
    ours: list[dict[str, float]] = []
    others: dict[str, list[dict[str, float]]] = {name: [] for name in QUERIES}
    for number in range(rounds):
        ours.append(side.join("--memory", LARGE_MEMORY))
        say(f"round {number + 1}: ours {ours[-1]}")
        for name, queries in QUERIES.items():
            others[name].append(peer(directory, queries))
            say(f"round {number + 1}: DuckDB, {name} {others[name][-1]}")
    check([*ours, *(run for runs in others.values() for run in runs)], keys)
    return ours, others


def check(runs: list[dict[str, float]], keys: int) -> None:
    wrong = [run for run in runs if run["common"] != keys - keys // 2]
    if wrong:
        sys.exit(f"a result is wrong: {wrong}")


def add_whole_jobs(
    rows: Rows, ours: list[dict[str, float]], others: dict[str, list[dict[str, float]]]
) -> None:
    for name, runs in others.items():
        # One semi-join returns one party's rows, half of what ours does.
        goal = None if name == "one semi-join" else 1.0
        for what, shown in (("wall", "wall"), ("cpu", "CPU")):
            rows.add(f"two CSV files to matched rows, {shown}, {name}", least(ours, what), least(runs, what),
                     "s", goal)


def add_service(rows: Rows, side: Ours, keys: int, rounds: int, options: argparse.Namespace) -> None:
    """Several services, little memory, and each half of the service alone."""
    for services in SERVICES:
        side.write_job_of_services(f"over-{services}.toml", services)
    spread: dict[int, list[dict[str, float]]] = {services: [] for services in (1, *SERVICES)}
    for number in range(rounds):
        for services, runs in spread.items():
            runs.append(side.join(job="job.toml" if services == 1 else f"over-{services}.toml"))
            say(f"round {number + 1}, {services} services: ours {runs[-1]}")
    small = side.join("--memory", f"{SMALL_MEMORY}M")
    say(f"--memory {SMALL_MEMORY}M: ours {small}")
    check([small, *(run for runs in spread.values() for run in runs)], keys)
    rows.add(f"a provider's peak memory with --memory {SMALL_MEMORY}M", small["provider peak"] / 2**20,
             SMALL_MEMORY, "MiB", 1.0)
    for services in SERVICES:
        rows.add(f"{services} services beside one, CPU of all processes",
                 least(spread[services], "cpu"), least(spread[1], "cpu"), "s", 1.1)
    # In turn, like everything that is compared: a neighbour on the machine slows both.
    uploads, transfers, one, two = [], [], [], []
    for _ in range(rounds + 2):
        uploads.append(side.upload(keys))
        transfers.append(figures(options.transfer, PSEUDONYM_BYTES * keys))
        one.append(figures(options.engine, 2, keys, threads=1))
        two.append(figures(options.engine, 2, keys, threads=2))
    say(f"uploads: {uploads}")
    normalised = figures(options.normalise, NORMALISED_ROWS)
    nanoseconds = 1e9 / keys
    rows.add("an upload's CPU an id at the service, TLS and a copy alone", min(uploads) * nanoseconds,
             least(transfers, "receive_cpu_seconds") * nanoseconds, "ns", UPLOAD_GOAL)
    rows.add("the join's CPU an id on one thread, a leaky radix join",
             least(one, "join_cpu_seconds") * nanoseconds / 2,
             least(one, "leaky_cpu_seconds") * nanoseconds / 2, "ns", 1.0)
    rows.add("the join, two threads, wall beside one",
             least(two, "join_wall_seconds"), least(one, "join_wall_seconds"), "s", 1 / 1.7)
    for name, goal in NORMALISE_GOALS.items():
        found = normalised[name]
        rows.add(f"normalising one {name.replace('_', ' ')}, beside copying it",
                 found["nanoseconds"], found["copy_nanoseconds"], "ns")
        if goal is not None:
            rows.add(f"normalising one {name.replace('_', ' ')}, goal {goal} ns", found["nanoseconds"], goal, "ns", 1.0)
    rows.add("memory of the join, goal 20 B a pseudonym and 64 MiB",
             least(one, "peak_bytes") / 2**20, 20 * 2 * keys / 2**20 + 64, "MiB", 1.0)


def growth(
    rows: Rows, sizes: list[int], ours: list[dict[str, float]], others: list[dict[str, float]]
) -> None:
    """How much faster than the number of ids time grows: 1.2 if ten times as many take twelve times as long."""
    for index in range(1, len(sizes)):
        times = sizes[index] / sizes[index - 1]
        for what, shown in (("wall", "wall"), ("cpu", "CPU")):
            rows.add(f"from {sizes[index - 1]:,} to {sizes[index]:,} ids, {shown}, beyond the number of ids",
                     ours[index][what] / ours[index - 1][what] / times,
                     others[index][what] / others[index - 1][what] / times, "")


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--convelo", required=True)
    parser.add_argument("--engine", required=True, help="the example engine_cost of convelo-psi")
    parser.add_argument("--transfer", required=True, help="the example transfer_cost of convelo-tests")
    parser.add_argument("--normalise", required=True, help="the example normalise_cost of convelo-keys")
    parser.add_argument("--keys", type=numbers, default=[10_000_000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    rows = Rows()
    best_ours: list[dict[str, float]] = []
    best_others: list[dict[str, float]] = []
    for index, keys in enumerate(options.keys):
        with tempfile.TemporaryDirectory(prefix="convelo-bench-") as name:
            directory = pathlib.Path(name)
            write_tables(directory, keys)
            side = Ours(os.path.abspath(options.convelo), directory, keys)
            try:
                ours, others = whole_jobs(side, directory, keys, options.rounds)
                if len(options.keys) > 1:
                    rows.add(f"{keys:,} ids:", keys, keys, "")
                add_whole_jobs(rows, ours, others)
                rows.add("a provider's peak memory, goal 400 MiB for 10,000,000 ids",
                         least(ours, "provider peak") / 2**20, max(400 * keys / 10_000_000, 64), "MiB", 1.0)
                if index == 0:
                    add_service(rows, side, keys, options.rounds, options)
            finally:
                side.close()
            both = others["two semi-joins"]
            best_ours.append({what: least(ours, what) for what in ("wall", "cpu")})
            best_others.append({what: least(both, what) for what in ("wall", "cpu")})
    growth(rows, options.keys, best_ours, best_others)
    rows.finish(options.json)


if __name__ == "__main__":
    main()
