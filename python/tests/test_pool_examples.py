"""The programs of ``python/examples`` run, whichever is started first."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from genuine_process import free_ports

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("order", [("alice", "bob"), ("bob", "alice")])
def test_either_start_order(order: tuple[str, str], tmp_path: Path) -> None:
    ports = dict(zip(("61001", "61002"), map(str, free_ports(2)), strict=True))
    running = {}
    for name in order:
        text = (EXAMPLES / f"{name}.py").read_text()
        for fixed, free in ports.items():
            assert fixed in text
            text = text.replace(fixed, free)
        program = tmp_path / f"{name}.py"
        program.write_text(text)
        running[name] = subprocess.Popen(
            [sys.executable, str(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(1)
    try:
        said = {name: process.communicate(timeout=30) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert {name: process.returncode for name, process in running.items()} == {
        "alice": 0, "bob": 0,
    }, said  # fmt: skip
    assert said["alice"][0] == "Good morning Alice, I can hear you.\n"
    assert said["bob"][0] == "Good morning Bob, Alice here.\n"
    # Quiet, also while the other is not there yet: at most the warning about plain HTTP, and one of
    # Python itself about the loop.
    assert all(text.count("\n") <= 3 for _, text in said.values()), said
    assert not any("Traceback" in text for _, text in said.values()), said
