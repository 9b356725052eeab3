"""Decodes messages in a process of its own, which may take no more memory than a message may.

``Decoding`` starts it. The process itself gets messages on standard input and answers with what
became of each.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ormsgpack

FACTOR = 64
SLACK = 1 << 20
ALLOCATORS = 3 << 20
"""Bytes by which the address space may grow beyond what is used: Python's arenas are 1 MiB large,
and malloc's areas grow by parts."""

VALUE, REFUSED = "value", "refused"


class Decoding:
    """The process. It is started again if it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def result(self, wire: int, document: bytes, buffers: Sequence[bytes] = ()) -> str:
        """What becomes of a message: ``value``, ``refused`` and why, or what went wrong."""
        if self._process is None or self._process.poll() is not None:
            # One area for malloc, and nothing reserved ahead: what is used is what is counted.
            alone = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **alone, "OMP_NUM_THREADS": "1"},
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        request = ormsgpack.packb([wire, document, list(buffers)])
        self._process.stdin.write(len(request).to_bytes(8, "little") + request)
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            return f"the process ended with {self._process.wait()}"
        return answer.decode().strip()

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@contextlib.contextmanager
def _limited(extra: int) -> Iterator[None]:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _answer(wire: int, document: bytes, buffers: list[bytes]) -> str:
    from convelo.exceptions import BodyError
    from convelo.wire.compatible import decode_value
    from convelo.wire.second import decode

    extra = FACTOR * (len(document) + sum(map(len, buffers))) + SLACK + ALLOCATORS
    views = [memoryview(buffer) for buffer in buffers]
    try:
        with _limited(extra):
            if wire == 2:
                decode(document, views)
            else:
                decode_value(document, wire=wire)
    except BodyError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return f"out of memory: {error!r}"
            cause = cause.__cause__ or cause.__context__
        return f"{REFUSED}: {error}".replace("\n", " ")
    except BaseException as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return VALUE


def _warm_up() -> None:
    """Imports and starts whatever is imported and started at first use."""
    import pandas as pd
    import pyarrow as pa

    from convelo import register_extras
    from convelo.wire import compatible, second

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    register_extras()
    frame = pd.DataFrame(
        {
            "a": ["x", None], "b": [1, 2], "c": pd.Categorical(["a", "b"]),
            "d": pd.to_datetime(["2020", "2021"]).tz_localize("Europe/Amsterdam"),
            "e": [[1], None], "f": [{"g": 1}, None],
        }
    )  # fmt: skip
    for _ in range(3):
        second.decode(*second.encode([frame, frame["a"]]))
        compatible.decode_value(compatible.encode_value([frame, frame["a"]]))  # type: ignore[arg-type]


def _serve() -> None:
    _warm_up()
    libc = ctypes.CDLL(None)
    while head := sys.stdin.buffer.read(8):
        request: Any = ormsgpack.unpackb(sys.stdin.buffer.read(int.from_bytes(head, "little")))
        gc.collect()
        libc.malloc_trim(0)
        sys.stdout.write(_answer(*request) + "\n")
        sys.stdout.flush()
        del request


if __name__ == "__main__":
    _serve()
