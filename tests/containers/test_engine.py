"""That the tests leave nothing behind."""

from __future__ import annotations

from conftest import Images
from engine import LABEL, RUNNING, Engine


def test_what_dead_runs_left_behind_goes_and_what_others_use_stays(engine: Engine, images: Images) -> None:
    def make(name: str, owner: str) -> str:
        label, name = f"{LABEL}={owner}", engine.name(name)
        engine("network", "create", "--internal", "--label", label, name)
        engine("create", "--name", name, "--label", label, "--network", name, images.provider)
        return name

    # Process 1 runs everywhere, and did not start at the end of time.
    dead = make("dead", f"1-{2**63}")
    alive = make("alive", engine.owner)
    engine.remove_left()
    for kind in (["ps", "--all"], ["network", "ls"]):
        listed = engine(*kind, "--format", "{{json .}}")
        assert dead not in listed and alive in listed
    engine.remove_own(RUNNING)
    assert alive not in engine("ps", "--all") + engine("network", "ls")
