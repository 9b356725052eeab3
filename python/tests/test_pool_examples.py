"""The examples run: the programs of ``python/examples``, and those in docstrings and the README."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent, indent

import pytest
from genuine_process import free_ports

from convelo import Pool, pki, sync, testing
from convelo.compat import tno5

PYTHON = Path(__file__).parents[1]
EXAMPLES = PYTHON / "examples"

BOB = """
import asyncio
from convelo import Pool

async def main():
    async with Pool() as pool:
        pool.add_http_server(addr="127.0.0.1", port=61002)
        pool.add_http_client("Alice", addr="127.0.0.1", port=61001)
        print(await pool.recv("Alice"))
        await pool.send("Alice", "Good morning Alice")

asyncio.run(main())
"""

BOB_OF_5 = """
import asyncio
from convelo.compat.tno5 import HttpCommunicator, HttpConnection, Pool

async def main():
    pool = Pool("bob", HttpCommunicator("127.0.0.1", 61002), timeout=None)
    pool.add_client("alice", HttpConnection("127.0.0.1", 61001))
    async with pool:
        print(await pool.recv("alice"))
        await pool.send("alice", "Good morning Alice")

asyncio.run(main())
"""


def example_in(documentation: str | None) -> str:
    """The indented lines behind the first ``::``."""
    assert documentation is not None
    found = re.search(r"::\n\n((?:[ ]+.*\n|\n)+?)(?=\S|\Z|[ ]*Args:)", documentation + "\n")
    assert found is not None
    return dedent(found[1])


def in_a_coroutine(imports: str, example: str) -> str:
    return (
        f"import asyncio\n{imports}\nasync def main():\n"
        + indent(example, "    ")
        + "    print(reply)\nasyncio.run(main())\n"
    )


def await_port(port: int) -> None:
    """Waits until somebody listens."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    pytest.fail(f"nobody listens on port {port}")


def run_together(programs: Mapping[str, str], directory: Path) -> dict[str, str]:
    """What the programs print, which find each other on ports 61001 and 61002, here free ones.

    The second program is started when the first one listens: ``bob`` on the latter port.
    """
    ports = dict(zip(("61001", "61002"), map(str, free_ports(2)), strict=True))
    running = {}
    for name, text in programs.items():
        for fixed, free in ports.items():
            assert fixed in text
            text = text.replace(fixed, free)
        program = directory / f"{name}.py"
        program.write_text(text)
        running[name] = subprocess.Popen(
            [sys.executable, str(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if len(running) == 1:
            await_port(int(ports["61002" if name == "bob" else "61001"]))
    try:
        said = {name: process.communicate(timeout=30) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert {process.returncode for process in running.values()} == {0}, said
    # Quiet, also while the other is not there yet: at most the warning about plain HTTP, and one of
    # Python itself about the loop.
    assert all(text.count("\n") <= 3 for _, text in said.values()), said
    assert not any("Traceback" in text for _, text in said.values()), said
    return {name: printed for name, (printed, _) in said.items()}


@pytest.mark.parametrize("order", [("alice", "bob"), ("bob", "alice")])
def test_either_start_order(order: tuple[str, str], tmp_path: Path) -> None:
    programs = {name: (EXAMPLES / f"{name}.py").read_text() for name in order}
    said = run_together(programs, tmp_path)
    assert said["alice"] == "Good morning Alice, I can hear you.\n"
    assert said["bob"] == "Good morning Bob, Alice here.\n"


DOCUMENTED = {
    "pool": (BOB, in_a_coroutine("from convelo import Pool", example_in(Pool.__doc__))),
    "pool of 5.0": (
        BOB_OF_5,
        in_a_coroutine(
            "from convelo.compat.tno5 import HttpCommunicator, HttpConnection, Pool",
            example_in(tno5.Pool.__doc__),
        ),
    ),
    "sync": (BOB, example_in(sync.__doc__)),
    "README": (BOB, (PYTHON / "README.md").read_text().split("```python\n")[1].split("```")[0]),
}


@pytest.mark.parametrize(("bob", "alice"), DOCUMENTED.values(), ids=DOCUMENTED)
def test_documented_examples(bob: str, alice: str, tmp_path: Path) -> None:
    said = run_together({"bob": bob, "alice": alice}, tmp_path)
    assert said["alice"] == "Good morning Alice\n"
    assert said["bob"] in ("Hello\n", "Good morning\n")


def test_the_documented_commands_make_keys_and_certificates(tmp_path: Path) -> None:
    for line in example_in(pki.__doc__).strip().splitlines():
        python, *arguments = shlex.split(line, comments=True)
        assert python == "python"
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, timeout=60)
        if "authority" in arguments:
            (tmp_path / "Alice.crt").unlink()
    assert {path.name for path in tmp_path.iterdir()} == {
        "ca.key", "ca.crt", "Alice.key", "Alice.crt", "Alice.pem",
        "Bob.key", "Bob.crt", "Carol.key", "Carol.crt",
    }  # fmt: skip


async def test_the_documented_test_passes(http_pool_duo: tuple[Pool, Pool]) -> None:
    names: dict[str, object] = {}
    exec(example_in(testing.__doc__), names)
    await names["test_protocol"](http_pool_duo)  # type: ignore[operator]


def test_contexts_are_remembered_as_documented(tmp_path: Path) -> None:
    pki.new_authority(tmp_path)
    pki.issue(tmp_path, "alice")

    def make_contexts() -> list[object]:
        files = tmp_path / "alice.key", tmp_path / "alice.crt", tmp_path / "ca.crt"
        return [Pool.create_ssl_context(*files, server=server) for server in (False, True)]

    names: dict[str, object] = {**vars(tno5), "make_contexts": make_contexts}
    exec(example_in(tno5.remember_ssl_files.__doc__), names)
    contexts = names["client_context"], names["server_context"]
    assert tno5.HttpCommunicator("127.0.0.1", 0, *contexts).use_ssl  # type: ignore[arg-type]
