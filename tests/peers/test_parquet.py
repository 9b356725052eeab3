"""Tables that pyarrow wrote, through a whole job, into tables that pyarrow and DuckDB read."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import random
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

ROWS = 50_000
NAMES = ("alice", "bob")
MATCHED = ("--output", "alice-matched.parquet")


class Job:
    """A service, and two parties whose key is one id."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.program = os.environ["CONVELO_TESTS_BINARY"]
        self.convelo("simulator", "new", "platform")
        shutil.copy(home / "platform/collateral.json", home / "collateral.json")
        self.service = subprocess.Popen(
            [self.program, "serve", "--json", "--simulated", "platform", "--listen", "127.0.0.1:0"],
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.service.stdout is not None
        address = json.loads(self.service.stdout.readline())["listening"]
        parties = []
        for name in NAMES:
            key = re.search(r"sha256:[0-9a-f]{64}", self.convelo("keygen", name))
            assert key is not None
            parties += ["--party", f"{name}={key[0]}"]
        self.convelo("init", "job.toml", "--policy", "platform/policy.toml", "--service", address, *parties)
        job = (home / "job.toml").read_text()
        job = job.replace('normalise = ["email"]', 'normalise = ["trim"]')
        (home / "job.toml").write_text(job)

    def convelo(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run([self.program, *arguments], cwd=self.home, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def run(self, options: dict[str, list[str]]) -> None:
        """Runs both parties, each with its options."""
        runs = [
            subprocess.Popen(
                [self.program, "run", "job.toml", "--as", name, "--insecure-simulated", "--force"]
                + ["--quiet", *options[name]],
                cwd=self.home,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in NAMES
        ]
        for run in runs:
            _, said = run.communicate(timeout=60)
            assert run.returncode == 0, said

    def run_with_ids(self, *alice: str) -> None:
        """Runs both parties; bob has the ids of ids.txt."""
        bob = ["--input", "ids.txt", "--output", "bob.txt"]
        self.run({"alice": [*alice, *MATCHED], "bob": bob})

    def close(self) -> None:
        self.service.terminate()
        self.service.wait(20)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    try:
        yield job
    finally:
        job.close()


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


def test_a_job_over_parquet(job: Job) -> None:
    tables = [table(0, 1), table(ROWS // 2, 2)]
    pq.write_table(tables[0], job.home / "alice.parquet", compression="zstd")
    pq.write_table(
        tables[1], job.home / "bob.parquet", compression="gzip", use_dictionary=False, row_group_size=7000
    )
    job.run(
        {
            "alice": ["--input", "alice.parquet", "--key", "id", *MATCHED],
            "bob": ["--input", "bob.parquet", "--key", "id", "--select", "kind,row", "--output", "bob-matched.parquet"],
        }
    )
    common = set(tables[0]["id"].to_pylist()) & set(tables[1]["id"].to_pylist()) - {None}
    assert common
    for name, columns in zip(NAMES, [None, ["kind", "row"]], strict=True):
        given = pq.read_table(job.home / f"{name}.parquet")
        wanted = given.filter(pc.is_in(given["id"], pa.array(sorted(common))))
        matched = pq.read_table(job.home / f"{name}-matched.parquet")
        wanted = wanted if columns is None else wanted.select(columns)
        assert matched.schema.equals(wanted.schema)
        assert matched.to_pylist() == wanted.to_pylist()


#: Values at the bounds of every type.
BOUNDS: dict[str, pa.Array] = {
    "bool": pa.array([True, False]),
    **{
        f"{kind}{bits}": pa.array([low, high], getattr(pa, f"{kind}{bits}")())
        for bits in (8, 16, 32, 64)
        for kind, low, high in (
            ("int", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
            ("uint", 0, 2**bits - 1),
        )
    },
    "float": pa.array([-3.4e38, 1e-45], pa.float32()),
    "double": pa.array([float("-inf"), 5e-324]),
    "nan": pa.array([float("nan"), -0.0]),
    **{
        f"decimal{digits}_{scale}": pa.array(
            [decimal.Decimal(sign * (10**digits - 1)).scaleb(-scale, decimal.Context(prec=80)) for sign in (1, -1)],
            pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale),
        )
        for digits, scale in ((9, 0), (9, 2), (18, 4), (38, 0), (38, 10), (76, 5))
    },
    "string": pa.array(["", "\U0001f600é"]),
    "large_string": pa.array(["", "x" * 70_000], pa.large_string()),
    "binary": pa.array([b"", b"\xff\x00"]),
    "fixed": pa.array([b"\x00" * 5, b"\xff" * 5], pa.binary(5)),
    "date32": pa.array([dt.date.min, dt.date.max]),
    "date64": pa.array([dt.date.min, dt.date.max], pa.date64()),
    "time32s": pa.array([0, 86_399], pa.time32("s")),
    "time32ms": pa.array([0, 86_399_999], pa.time32("ms")),
    "time64us": pa.array([0, 86_399_999_999], pa.time64("us")),
    "time64ns": pa.array([0, 86_399_999_999_999], pa.time64("ns")),
    **{
        f"timestamp_{unit}_{zone}": pa.array([low, high], pa.timestamp(unit, zone))
        for zone in (None, "UTC", "Europe/Amsterdam")
        for unit, low, high in (
            ("s", -62_135_596_800, 253_402_300_799),
            ("ms", -62_135_596_800_000, 253_402_300_799_999),
            ("us", -62_135_596_800_000_000, 253_402_300_799_999_999),
            ("ns", -(2**63) + 1, 2**63 - 1),
        )
    },
    "duration": pa.array([-(2**62), 2**62], pa.duration("us")),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "list": pa.array([[], [1, None]]),
    "fixed_list": pa.array([[1, 2], [3, None]], pa.list_(pa.int16(), 2)),
    "map": pa.array([[], [("k", None)]], pa.map_(pa.string(), pa.int8())),
    "struct": pa.array([{"a": None, "b": []}, {"a": 1, "b": ["x", None]}]),
    "lists": pa.array([[[], None], [[{"d": dt.date.max}]]]),
    "null": pa.nulls(2),
}


def logical(name: str) -> pa.Array | None:
    """Columns of types that not every pyarrow has."""
    if name == "uuid" and hasattr(pa, "uuid"):
        return pa.array([uuid.UUID(int=0).bytes, uuid.UUID(int=2**128 - 1).bytes], pa.uuid())
    if name == "json" and hasattr(pa, "json_"):
        return pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", '{"a": 1}']))
    if name == "half":
        return pa.array([0.5, -65504.0], pa.float16())
    return None


def bounds() -> pa.Table:
    """The bounds of all types, a row without values, and a row that matches nothing."""
    columns = {**BOUNDS, **{name: column for name in ("uuid", "json", "half") if (column := logical(name)) is not None}}
    ids = pa.array(["lower", "upper", "nothing", "nobody"])
    nulls = {name: pa.nulls(2, column.type) for name, column in columns.items()}
    full = pa.table({"id": ids, **{name: pa.concat_arrays([column, nulls[name]]) for name, column in columns.items()}})
    fields = [
        field.with_metadata({"PARQUET:field_id": str(7 * number + 1)}) for number, field in enumerate(full.schema)
    ]
    return full.cast(pa.schema(fields, metadata={"made by": "the test"}))


def same_file(given: Path, matched: Path, rows: list[int], columns: list[str] | None = None) -> None:
    """Two files have the same schema in all its parts, and ``matched`` the rows of ``given``."""
    one, other = pq.ParquetFile(given), pq.ParquetFile(matched)
    if columns is None:
        assert one.schema.equals(other.schema), f"{one.schema}\n{other.schema}"
        assert one.metadata.metadata == other.metadata.metadata
    wanted = one.read(columns=columns).take(rows)
    assert other.schema_arrow.equals(wanted.schema, check_metadata=columns is None)
    found = other.read()
    assert found.num_rows == len(rows)
    for name in wanted.column_names:
        # NaN is not equal to itself, and Python has no local times outside the years 1 to 9999.
        equal = found[name].equals(wanted[name])
        assert equal or repr(found[name].to_pylist()) == repr(wanted[name].to_pylist()), name


def same_in_duckdb(given: Path, matched: Path, ids: list[str]) -> None:
    """DuckDB sees the same types and values."""
    with duckdb.connect() as database:
        read = [f"read_parquet('{path}')" for path in (given, matched)]
        types = [database.execute(f"DESCRIBE SELECT * FROM {table}").fetchall() for table in read]
        assert types[0] == types[1]
        among = ", ".join(f"'{name}'" for name in ids)
        rows = [
            database.execute(f"SELECT * FROM {table} WHERE id IN ({among})").fetchall()
            for table in read
        ]
        assert repr(rows[0]) == repr(rows[1])


@pytest.mark.parametrize("arrow_schema", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_every_type_comes_out_as_it_went_in(job: Job, arrow_schema: bool, version: str) -> None:
    full = bounds()
    if version == "1.0":
        # It has no nanoseconds.
        full = full.drop_columns([name for name in full.column_names if "_ns_" in name or name == "time64ns"])
    given = job.home / "alice.parquet"
    pq.write_table(full, given, store_schema=arrow_schema, version=version, coerce_timestamps=None)
    (job.home / "ids.txt").write_text("lower\nupper\nnothing\n")
    for select in (None, ["uint64", "id", "struct", "timestamp_us_UTC"]):
        more = [] if select is None else ["--select", ",".join(select)]
        job.run_with_ids("--input", "alice.parquet", "--key", "id", *more)
        same_file(given, job.home / "alice-matched.parquet", [0, 1, 2], select)
    job.run_with_ids("--input", "alice.parquet", "--key", "id")
    same_in_duckdb(given, job.home / "alice-matched.parquet", ["lower", "upper", "nothing"])


def test_int96_at_any_depth_is_exact(job: Job) -> None:
    times = [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59), None, dt.datetime(2262, 4, 12)]
    full = pa.table(
        {
            "id": ["lower", "upper", "nothing", "nobody"],
            "when": pa.array(times, pa.timestamp("us")),
            "deep": pa.array([{"a": [time, None]} for time in times], pa.struct({"a": pa.list_(pa.timestamp("us"))})),
        }
    )
    given = job.home / "alice.parquet"
    pq.write_table(full, given, use_deprecated_int96_timestamps=True)
    assert "INT96" in {column["physical_type"] for column in columns_of(given)}
    (job.home / "ids.txt").write_text("lower\nupper\nnothing\n")
    job.run_with_ids("--input", "alice.parquet", "--key", "id")
    matched = job.home / "alice-matched.parquet"
    assert columns_of(given) == columns_of(matched)
    read = [pq.read_table(path, coerce_int96_timestamp_unit="us") for path in (given, matched)]
    assert read[1].to_pylist() == read[0].take([0, 1, 2]).to_pylist()
    assert read[1]["when"].to_pylist() == times[:3]
    same_in_duckdb(given, matched, ["lower", "upper", "nothing"])
    refused = job.convelo("check", "job.toml", "--input", "alice.parquet", "--key", "when", code=2)
    assert "INT96" in refused and 'CAST("when" AS TIMESTAMP)' in refused


#: Types that DuckDB writes and pyarrow does not, or writes otherwise.
DUCKDB_TYPES = '''
    uuid() AS u, '{"a": 1}'::JSON AS j, TIME '10:00:00+00'::TIMETZ AS tz, BIT '101' AS bits, INTERVAL 3 MONTH AS span,
    'a'::ENUM('a', 'b') AS kind, 5::UTINYINT AS small, 1::HUGEINT AS huge, [uuid()] AS ids,
    {'u': uuid(), 't': TIME '01:02:03'::TIMETZ, 'm': MAP {'k': uuid()}} AS deep,
    TIMESTAMP_NS '2000-01-01' AS ns, TIMESTAMPTZ '1900-01-01' AS instant, 1.5::DECIMAL(38, 10) AS price
'''


def test_what_duckdb_wrote_comes_out_as_it_went_in(job: Job) -> None:
    given = job.home / "alice.parquet"
    with duckdb.connect() as database:
        ids = "(VALUES ('lower'), ('upper'), ('nobody')) AS ids(id)"
        database.execute(f"COPY (SELECT id, {DUCKDB_TYPES} FROM {ids}) TO '{given}' (FORMAT parquet)")
    (job.home / "ids.txt").write_text("lower\nupper\n")
    job.run_with_ids("--input", "alice.parquet", "--key", "id")
    matched = job.home / "alice-matched.parquet"
    same_in_duckdb(given, matched, ["lower", "upper"])
    with duckdb.connect() as database:
        described = "name, type, repetition_type, num_children, converted_type, logical_type, precision, scale, field_id"
        schemas = [
            # The root has a name of its writer.
            database.execute(f"SELECT {described} FROM parquet_schema('{path}') OFFSET 1").fetchall()
            for path in (given, matched)
        ]
    assert schemas[0] == schemas[1]


def columns_of(path: Path) -> list[dict[str, str]]:
    """The leaves of a file's schema."""
    schema = pq.ParquetFile(path).schema
    return [
        {
            "path": schema.column(number).path,
            "physical_type": schema.column(number).physical_type,
            "logical_type": str(schema.column(number).logical_type),
        }
        for number in range(len(schema))
    ]


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("decimal", pa.array([decimal.Decimal(1), decimal.Decimal(2)], pa.decimal128(38, 0)), ["1", "2"]),
        ("double", pa.array([1.0, 2.0, None]), ["1", "2"]),
        ("binary", pa.array([b"a", "é".encode()]), ["a", "é"]),
        ("date", pa.array([dt.date(1980, 1, 2)]), ["1980-01-02"]),
        ("instant", pa.array([1500], pa.timestamp("ms", "UTC")), ["1970-01-01T00:00:01.5Z"]),
        ("view", pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        ("large", pa.array(["a"], pa.large_string()), ["a"]),
        ("dictionary", pa.array(["a", None, "b"]).dictionary_encode(), ["a", "b"]),
        ("uuid", pa.array([uuid.UUID(int=1).bytes], pa.uuid()), ["00000000-0000-0000-0000-000000000001"]),
        ("p.email", pa.array([{"email": "a"}, None, {"email": None}]), ["a"]),
    ],
)
def test_columns_with_one_text_are_keys(job: Job, name: str, column: pa.Array, expected: list[str]) -> None:
    pq.write_table(pa.table({name.split(".")[0]: column}), job.home / "alice.parquet", compression="brotli")
    (job.home / "ids.txt").write_text("".join(f"{text}\n" for text in expected))
    job.run_with_ids("--input", "alice.parquet", "--key", name)
    assert (job.home / "bob.txt").read_text().splitlines() == expected


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([1.0, 2.5]), ["row 2", "fraction"]),
        (pa.array([1.0, 2.0**53]), ["row 2", "too large"]),
        (pa.array([float("-inf")]), ["row 1", "too large"]),
        (pa.array([1.0, 2.0**24], pa.float32()), ["row 2", "too large"]),
        (pa.array([b"a", b"\xff"]), ["row 2", "UTF-8"]),
        (pa.array([decimal.Decimal("1.0")], pa.decimal128(9, 1)), ["CAST", "DECIMAL(9, 0)"]),
        (pa.array([True]), ["CAST", "VARCHAR"]),
        (pa.array([dt.time(1)]), ["CAST", "VARCHAR"]),
        (pa.array([["a"]]), ["one row for each value"]),
        (pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())), ["one row for each value"]),
        (pa.array([{"email": "a"}]), ["id.email"]),
    ],
)
def test_columns_without_one_text_are_refused_with_what_to_do(job: Job, column: pa.Array, words: list[str]) -> None:
    pq.write_table(pa.table({"id": column}), job.home / "alice.parquet")
    refused = job.convelo("check", "job.toml", "--input", "alice.parquet", "--key", "id", code=2)
    for word in words:
        assert word in refused


def test_a_directory_of_parts_is_one_table(job: Job) -> None:
    parts = job.home / "parts"
    parts.mkdir()
    whole = table(0, 3).slice(0, 3000)
    for number in range(3):
        pq.write_table(whole.slice(1000 * number, 1000), parts / f"part-{number}.parquet")
    (parts / "_SUCCESS").touch()
    (parts / ".part-0.parquet.crc").touch()
    ids = [name for name in whole["id"].to_pylist() if name is not None][::2]
    (job.home / "ids.txt").write_text("".join(f"{name}\n" for name in ids))
    job.run_with_ids("--input", "parts", "--key", "id")
    matched = pq.read_table(job.home / "alice-matched.parquet")
    assert matched.to_pylist() == whole.filter(pc.is_in(whole["id"], pa.array(ids))).to_pylist()
    pq.write_table(whole.drop_columns(["price"]), parts / "part-9.parquet")
    refused = job.convelo("check", "job.toml", "--input", "parts", "--key", "id", code=2)
    assert "columns are not those of the first file" in refused
