"""CSV tables, read by Python's ``csv`` module and by us."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

#: What a field may be made of: what separates fields and records, and what stands for itself.
PIECES = ["a", "b", "é", "7", " ", "'", '"', '""', ",", ";", "\t", "|", "\n", "\r\n", "\r", "a b"]
DELIMITERS = [",", ";", "\t", "|"]
LINE_ENDS = ["\n", "\r\n", "\r"]


class Checks:
    """What our program says of tables without contacting anybody."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.program = os.environ["CONVELO_TESTS_BINARY"]
        self.convelo("simulator", "new", "platform")
        shutil.copy(home / "platform/collateral.json", home / "collateral.json")
        key = re.search(r"sha256:[0-9a-f]{64}", self.convelo("keygen", "alice").stdout)
        assert key is not None
        parties = ["--party", f"alice={key[0]}", "--party", f"bob=sha256:{'0' * 64}"]
        address = "127.0.0.1:1"
        self.convelo("init", "job.toml", "--policy", "platform/policy.toml", "--service", address, *parties)
        job = (home / "job.toml").read_text()
        part = '[[key]]\nname = "{}"\nnormalise = []\n\n'
        parts = part.format("one") + part.format("two")
        job, replaced = re.subn(r"^\[\[key\]\].*?(?=^\[reveal\])", parts, job, flags=re.DOTALL | re.MULTILINE)
        assert replaced == 1
        (home / "job.toml").write_text(job)

    def convelo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.program, *arguments]
        return subprocess.run(command, cwd=self.home, capture_output=True, text=True, timeout=60)

    def counts(self, text: str, *options: str) -> dict[str, int] | str:
        """Rows, distinct keys of the first two columns and rows without a key; or the refusal."""
        (self.home / "table.csv").write_bytes(text.encode())
        keys = ["--input", "table.csv", "--key", "#1", "--key", "#2", "--header", "--allow-empty"]
        done = self.convelo("check", "job.toml", "--as", "alice", "--json", *keys, *options)
        if done.returncode:
            assert done.returncode == 2, done.stderr
            return done.stderr
        found = json.loads(done.stdout)["input"]
        return {name: found[name] for name in ("rows", "keys", "blank")}


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checks]:
    yield Checks(tmp_path_factory.mktemp("checks"))


def counts(rows: list[list[str]]) -> dict[str, int]:
    """The same of what Python has read."""
    keys = [(row[0], row[1]) for row in rows]
    whole = [key for key in keys if all(key)]
    return {"rows": len(rows), "keys": len(set(whole)), "blank": len(keys) - len(whole)}


def table(seed: int) -> list[list[str]]:
    """Records of one width, with all that is special in fields of all kinds."""
    chance = random.Random(seed)
    width = chance.randint(2, 4)

    def field() -> str:
        return "".join(chance.choices(PIECES, k=chance.randint(0, 4)))

    # The last record is no line of white space, which is no row, and no record repeats the header.
    body = [[field() for _ in range(width)] for _ in range(chance.randint(1, 60))]
    return [[f"name {number}" for number in range(width)], *body, ["last"] * width]


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("always", [False, True])
def test_quoted_fields_are_read_as_python_reads_them(
    checks: Checks, delimiter: str, line_end: str, always: bool
) -> None:
    def quoted(field: str) -> str:
        needed = always or any(c in field for c in f'{delimiter}"\r\n')
        return '"' + field.replace('"', '""') + '"' if needed else field

    for seed in range(8):
        records = table(seed)
        text = "".join(delimiter.join(map(quoted, record)) + line_end for record in records)
        assert read_strictly(text, delimiter) == records
        found = checks.counts(text, "--delimiter", "tab" if delimiter == "\t" else delimiter)
        assert found == counts(records[1:]), repr(text)


def test_what_python_escapes_is_read(checks: Checks) -> None:
    for seed in range(20):
        records = table(seed)
        file = io.StringIO(newline="")
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, doublequote=False, escapechar="\\")
        writer.writerows(records)
        found = checks.counts(file.getvalue(), "--delimiter", ",", "--escape", "\\")
        assert found == counts(records[1:]), repr(file.getvalue())


def read_strictly(text: str, delimiter: str = ",") -> list[list[str]] | None:
    """What Python reads; nothing if it refuses the text, or if not all records have the same width."""
    file = io.StringIO(text, newline="")
    try:
        records = [record for record in csv.reader(file, delimiter=delimiter, strict=True) if record]
    except csv.Error:
        return None
    return records if len({len(record) for record in records}) == 1 else None


def test_malformed_records_are_refused_as_python_refuses_them(checks: Checks) -> None:
    chance = random.Random(17)
    refused = 0
    for _ in range(250):
        pieces = chance.choices(["a", "b", '"', '"', ",", ",", "\n"], k=chance.randint(1, 12))
        body = "".join(pieces)
        text = f"one,two\n{body}\nlast,last\n"
        expected = read_strictly(text)
        found = checks.counts(text, "--delimiter", ",")
        refused += expected is None
        if expected is None:
            assert isinstance(found, str), f"{text!r} is read: {found}"
            assert re.search(r"line \d", found), found
        else:
            assert found == counts(expected[1:]), repr(text)
    assert 50 < refused < 245
