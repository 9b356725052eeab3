"""Tables that pyarrow wrote, through a whole job, into tables that pyarrow reads."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROWS = 50_000
NAMES = ("alice", "bob")


def table(first: int, seed: int) -> pa.Table:
    """Ids from ``first`` on in random order, some of them missing, and columns of many kinds."""
    ids: list[str | None] = [f"id-{number:08}" for number in range(first, first + ROWS)]
    random.Random(seed).shuffle(ids)
    ids[::1000] = [None] * len(ids[::1000])
    rows = range(ROWS)
    return pa.table(
        {
            "row": pa.array(rows, pa.int64()),
            "id": pa.array(ids),
            "kind": pa.array([f"kind-{row % 7}" for row in rows]).dictionary_encode(),
            "price": pa.array([row / 2 for row in rows]),
            "when": pa.array([1_700_000_000_000 + row for row in rows], pa.timestamp("ms", "UTC")),
            "deep": pa.array([{"a": row, "b": [row] * (row % 3)} for row in rows]),
        }
    )


def test_a_job_over_parquet(tmp_path: Path) -> None:
    program = os.environ["CONVELO_TESTS_BINARY"]

    def convelo(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    convelo("simulator", "new", "platform")
    shutil.copy(tmp_path / "platform/collateral.json", tmp_path / "collateral.json")
    service = subprocess.Popen(
        [program, "serve", "--json", "--simulated", "platform", "--listen", "127.0.0.1:0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert service.stdout is not None
        address = json.loads(service.stdout.readline())["listening"]
        parties = []
        for name in NAMES:
            key = re.search(r"sha256:[0-9a-f]{64}", convelo("keygen", name))
            assert key is not None
            parties += ["--party", f"{name}={key[0]}"]
        policy = ["--policy", "platform/policy.toml"]
        convelo("init", "job.toml", *policy, "--service", address, *parties)
        job = (tmp_path / "job.toml").read_text()
        job = job.replace('normalise = ["email"]', 'normalise = ["trim"]')
        (tmp_path / "job.toml").write_text(job)
        tables = [table(0, 1), table(ROWS // 2, 2)]
        pq.write_table(tables[0], tmp_path / "alice.parquet", compression="zstd")
        pq.write_table(
            tables[1], tmp_path / "bob.parquet", compression="gzip", use_dictionary=False, row_group_size=7000
        )
        options = {"alice": [], "bob": ["--select", "kind,row"]}
        runs = [
            subprocess.Popen(
                [program, "run", "job.toml", "--as", name, "--insecure-simulated", "--input", f"{name}.parquet", "--key", "id"]
                + ["--output", f"{name}-matched.parquet", "--quiet", *options[name]],
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in NAMES
        ]
        for run in runs:
            _, said = run.communicate(timeout=60)
            assert run.returncode == 0, said
    finally:
        service.terminate()
        service.wait(20)
    common = set(tables[0]["id"].to_pylist()) & set(tables[1]["id"].to_pylist()) - {None}
    assert common
    for name, columns in zip(NAMES, [None, ["kind", "row"]], strict=True):
        given = pq.read_table(tmp_path / f"{name}.parquet")
        wanted = given.filter(pc.is_in(given["id"], pa.array(sorted(common))))
        matched = pq.read_table(tmp_path / f"{name}-matched.parquet")
        wanted = wanted if columns is None else wanted.select(columns)
        assert matched.schema.equals(wanted.schema)
        assert matched.to_pylist() == wanted.to_pylist()
