#!/usr/bin/env python3
"""A service under many parties, under many jobs, and under none.

``cargo xtask bench load`` prepares everything and runs this. By hand::

    load_bench.py --convelo PROGRAM --engine PROGRAM --transfer PROGRAM [--json FILE]

One service on a simulated platform, and providers as separate processes on the same machine: 64 parties
with 100,000 ids each in one job; 200 jobs of two parties with 20,000 ids each, all at once; then nothing.
Every result is compared with the ids that the tables have in common.

The 64 parties are compared with only joining as many sets (``engine_cost``) and reading as many bytes from
TLS (``transfer_cost``); a job among 200 with the same job running alone. For memory, ``peer`` is the goal.

Exit status: 0 all goals hold, 1 a goal was missed or a run failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from join_bench import (
    PSEUDONYM_BYTES,
    PARTIES,
    Ours,
    Rows,
    cpu_of,
    figures,
    lines,
    memory_of,
    say,
    usage_of,
    write_ids,
)

MANY_PARTIES, MANY_PARTIES_KEYS = 64, 100_000
MANY_JOBS, MANY_JOBS_KEYS = 200, 20_000
IDLE_SECONDS = 10

# How often a job runs alone.
ALONE = 10


def run(side: Ours, runs: list[tuple[str, str]], common: int) -> dict[str, float]:
    """Runs all of these parties at once, each with the table of its name; all must find ``common`` ids."""
    begun, before = time.monotonic(), cpu_of(side.service.pid)
    outputs = [side.directory / f"{job}-{party}.matched" for job, party in runs]
    processes = [
        subprocess.Popen(
            [side.program, "run", job, "--as", party, "--insecure-simulated", "--input", f"{party}.csv", "--key", "id",
             "--output", output, "--quiet"],
            cwd=side.directory,
        )
        for (job, party), output in zip(runs, outputs)
    ]
    used = [usage_of(process) for process in processes]
    found = {lines(output) - 1 for output in outputs}
    if found != {common}:
        sys.exit(f"a result is wrong: found {found} ids, expected {common}")
    service = cpu_of(side.service.pid) - before
    return {
        "wall": time.monotonic() - begun,
        "service cpu": service,
        "cpu": service + sum(cpu for cpu, _ in used),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--convelo", required=True)
    parser.add_argument("--engine", required=True, help="the example engine_cost of convelo-psi")
    parser.add_argument("--transfer", required=True, help="the example transfer_cost of convelo-tests")
    parser.add_argument("--json")
    options = parser.parse_args()
    rows = Rows()

    with tempfile.TemporaryDirectory(prefix="convelo-bench-") as name:
        directory = pathlib.Path(name)
        side = Ours(os.path.abspath(options.convelo), directory, MANY_JOBS_KEYS)
        try:
            idle = memory_of(side.service.pid, "VmRSS")
            before = cpu_of(side.service.pid)
            time.sleep(IDLE_SECONDS)
            rows.add("a service that has nothing to do, share of a core, goal 0.001",
                     (cpu_of(side.service.pid) - before) / IDLE_SECONDS, 0.001, "", 1.0)
            rows.add("a service that has nothing to do, memory, goal 30 MiB", idle / 2**20, 30, "MiB", 1.0)

            say(f"{MANY_PARTIES} parties of {MANY_PARTIES_KEYS:,} ids")
            keys, common = {}, MANY_PARTIES_KEYS // 2
            for number in range(MANY_PARTIES):
                party = f"party-{number}"
                keys[party] = side.keygen(party)
                write_ids(directory / f"{party}.csv", 0, common, number)
                write_ids(directory / "own.csv", (number + 1) * 10**9, MANY_PARTIES_KEYS - common, number)
                own = (directory / "own.csv").read_bytes().split(b"\n", 1)[1]
                with (directory / f"{party}.csv").open("ab") as file:
                    file.write(own)
            side.write_job("many-parties.toml", keys, MANY_PARTIES_KEYS)
            many = run(side, [("many-parties.toml", party) for party in keys], common)
            say(f"{many}")
            ids = MANY_PARTIES * MANY_PARTIES_KEYS
            alone = figures(options.engine, MANY_PARTIES, MANY_PARTIES_KEYS)["join_cpu_seconds"]
            alone += figures(options.transfer, PSEUDONYM_BYTES * ids)["receive_cpu_seconds"]
            rows.add("64 parties, the service's CPU an id, join and transfer alone",
                     many["service cpu"] / ids * 1e9, alone / ids * 1e9, "ns", 2.0)

            say(f"{MANY_JOBS} jobs at once, two parties of {MANY_JOBS_KEYS:,} ids each")
            for number, party in enumerate(PARTIES):
                write_ids(directory / f"{party}.csv", number * MANY_JOBS_KEYS // 2, MANY_JOBS_KEYS, number)
            jobs = [f"job-{number}.toml" for number in range(MANY_JOBS)]
            for job in jobs:
                side.write_job(job, side.keys, MANY_JOBS_KEYS)
            many = run(side, [(job, party) for job in jobs for party in PARTIES], MANY_JOBS_KEYS // 2)
            say(f"{many}")
            time.sleep(2)
            rows.add("the service's memory after all jobs, before and 32 MiB",
                     memory_of(side.service.pid, "VmRSS") / 2**20, idle / 2**20 + 32, "MiB", 1.0)
            pair = [(jobs[0], party) for party in PARTIES]
            alone = min(run(side, pair, MANY_JOBS_KEYS // 2)["cpu"] for _ in range(ALONE))
            rows.add("200 jobs at once, CPU of a job of all processes, one alone",
                     many["cpu"] / MANY_JOBS * 1000, alone * 1000, "ms", 1.5)
        finally:
            side.close()
    rows.finish(options.json)


if __name__ == "__main__":
    main()
