"""Runs the test-suite of a genuine ``tno.mpc.communication`` against ours.

    python run.py 4.8.1 DIRECTORY        # further arguments go to pytest

DIRECTORY holds the unpacked source distribution. Its tests are copied out of it, and every import
of ``tno.mpc.communication`` in them is answered by ``convelo.compat.tno`` (for 5.0.4 by
``convelo.compat.tno5``), so that nothing of the genuine code runs.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from genuine_alias import Aliases
from genuine_plugin import GenuineSuite

SUITES = {
    # Version: (our module, the tests that are there, those left out with the reason).
    "4.8.1": (
        "convelo.compat.tno",
        113,
        {
            "test_dataframe_serialization": "the genuine package fails it too with pandas 2 and "
            "newer: it has the serialization restore datetime64[us] columns as datetime64[ns]",
        },
    ),
    "5.0.4": ("convelo.compat.tno5", 118, {}),
}

OPTIONS = [
    "--import-mode=importlib",
    "--strict-markers",
    "-p", "no:cacheprovider",
    "-o", "timeout=60",
    # The suites were written for older libraries.
    "-W", "ignore::DeprecationWarning",
    "-W", "ignore::FutureWarning",
]  # fmt: skip


def main(version: str, directory: str, *arguments: str) -> int:
    """Runs one suite; returns pytest's exit status."""
    ours, expected, left_out = SUITES[version]
    sources = _sources(Path(directory))
    with tempfile.TemporaryDirectory(prefix=f"genuine-{version}-") as temporary:
        suite = Path(temporary) / "suite"
        communication = sources / "tno" / "mpc" / "communication"
        shutil.copytree(communication / "test", suite)
        # Its own exports are fixtures that are declared old.
        (suite / "__init__.py").write_text("")
        of_plugin = sources / "pytest_tno" / "tno" / "mpc" / "communication" / "test"
        if of_plugin.is_dir():
            shutil.copytree(of_plugin, suite / "with_plugin")
        _allow_absent_torch(suite)
        (suite / "pytest.ini").write_text(
            f"[pytest]\nconvelo_pool_api = {version[0]}\nmarkers = asyncio\n"
        )
        aliases = Aliases(ours, suite)
        aliases.install()
        plugin = GenuineSuite(suite, expected, left_out, is_whole=not arguments)
        options = [*OPTIONS, "--rootdir", str(suite), "-c", str(suite / "pytest.ini")]
        return int(pytest.main([*options, str(suite), *arguments], plugins=[plugin]))


def _allow_absent_torch(suite: Path) -> None:
    """Has the tests of tensors skipped where torch, with its gigabytes, is not installed."""
    for file in suite.rglob("test_*.py"):
        text = file.read_text()
        if "import torch" in text:
            file.write_text(text.replace("except OSError as exc", "except Exception as exc"))


def _sources(directory: Path) -> Path:
    """The ``src`` directory of the source distribution."""
    for found in (directory / "src", *sorted(directory.glob("*/src"))):
        if (found / "tno" / "mpc" / "communication" / "test").is_dir():
            return found
    raise SystemExit(f"{directory} holds no source distribution of tno.mpc.communication")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in SUITES:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))
