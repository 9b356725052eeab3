"""Decodes arrays of every dtype and prints those that hold what nobody sent.

Run with ``MALLOC_PERTURB_``, which fills what malloc returns: memory that was not written shows it.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import ormsgpack

from convelo.exceptions import BodyError
from convelo.wire import second


def dtypes() -> list[Any]:
    """Every dtype that can be described, with and without bytes, on their own and in structures."""
    plain: list[Any] = [
        f"{order}{kind}{size}{unit}"
        for order in "<>|"
        for kind in "biufcmMSUV"
        for size in (0, 1, 2, 4, 8, 16, 1000)
        for unit in (("", "[ns]") if kind in "mM" else ("",))
    ]
    structured: list[Any] = [
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": size, "aligned": False}
        for names, formats, offsets in (
            ([], [], []),
            (["a"], ["|S0"], [0]),
            (["a"], ["<i4"], [0]),
            (["a", "b"], ["<U0", "<i2"], [0, 4]),
            (["a"], [["<i4", [0]]], [0]),
            (["a"], [["|V0", [3]]], [0]),
        )
        for size in (0, 4, 6, 64)
    ]
    return plain + structured + [["<i4", [0]], ["<i4", [2]], ["|S0", [2]], ["<i4", [2, 0]]]


SHAPES = [[], [0], [1], [3], [0, 5], [5, 0], [100], [20, 20]]


def main() -> int:
    """The number of arrays with bytes that were not sent."""
    found = accepted = 0
    for form, shape, order, writable in itertools.product(
        dtypes(), SHAPES, "CF", (False, True)
    ):
        is_plain = type(form) is str
        try:
            size = np.dtype(form).itemsize if is_plain else second._described(form, 9).itemsize
        except (TypeError, ValueError, BodyError):
            size = 1
        whole = b"\x11" * (size * int(np.prod(shape, dtype=int)))
        for content in {b"", b"\x11", whole}:
            array = [form, shape, order, content] if is_plain else [form, shape, content]
            code, payload = (2, array) if is_plain else (1, ["ndarray.structured", array])
            document = ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(payload)))
            try:
                value = second.decode(document, [], writable=writable)
            except BodyError:
                continue
            accepted += 1
            # numpy itself leaves gaps in copies unwritten; a view shows what is there.
            held = bytes(memoryview(value.reshape(-1, order="A").view("u1"))) if value.nbytes else b""
            if value.nbytes != len(content) or held != content:
                found += 1
                print(form, shape, order, writable, value.nbytes, len(content), held[:16].hex())
    print(f"{accepted} arrays", file=sys.stderr)
    assert accepted > 500
    return found


if __name__ == "__main__":
    sys.exit(min(main(), 100))
