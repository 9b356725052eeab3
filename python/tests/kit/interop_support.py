"""Which genuine versions we work with, and which of our facades stands for each."""

from __future__ import annotations

VERSIONS = ("4.8.1", "4.12.0", "5.0.4")
GENUINE = "tno.mpc.communication"


def api_of(version: str) -> int:
    """The API line and wire of a version."""
    return int(version.partition(".")[0])


def facade_of(version: str) -> str:
    """The module of ours that has the API of a version."""
    return "convelo.compat.tno" if api_of(version) == 4 else "convelo.compat.tno5"
