"""deploy/prometheus and deploy/grafana: only figures that exist, and alerts that fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PROMETHEUS = REPOSITORY / "deploy/prometheus"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((REPOSITORY / "deploy/grafana/dashboard.json").read_text())

#: What Prometheus itself, and its blackbox exporter, say of whom they ask.
OF_PROMETHEUS = {"up", "probe_success", "probe_http_status_code"}

#: Words of PromQL that are no series.
WORDS = {"and", "or", "unless", "on", "by", "ignoring", "without", "group_left", "group_right", "bool", "offset"}


def exposed() -> dict[str, set[str]]:
    """The series of the status port, as its source writes them, each with its labels."""
    source = (REPOSITORY / "crates/operate/src/status.rs").read_text()
    series: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^[^#]*?\b(convelo_\w+)(?:\{\{(.*?)\}\})? ", source, re.MULTILINE):
        series.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", source, re.MULTILINE))
    endings = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "info": ("_info",), "gauge": ("",)}
    assert set(series) == {name + end for name, kind in types.items() for end in endings[kind]}
    return series


EXPOSED = exposed()


def used(expression: str) -> dict[str, set[str]]:
    """The series of a PromQL expression, each with the labels that it is chosen by."""
    found: dict[str, set[str]] = {}
    without_groups = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)", "", expression)
    without_ranges = re.sub(r"\[[^\]]*\]", "", without_groups)
    for name, labels in re.findall(r"(?<![\w\"$])([a-zA-Z_:][\w:]*)(\{[^}]*\})?(?!\w*\s*\()", without_ranges):
        if name not in WORDS:
            found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))
    return found


def problems(expression: str) -> list[str]:
    wrong = []
    for name, labels in used(expression).items():
        if name in OF_PROMETHEUS:
            continue
        if name not in EXPOSED:
            wrong.append(f"{name} is no figure of ours")
        elif unknown := labels - EXPOSED[name] - {"instance"}:
            wrong.append(f"{name} has no label {', '.join(sorted(unknown))}")
    if not used(expression):
        wrong.append("it uses no figure")
    return wrong


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_use_figures_that_exist_and_say_what_to_do(rule: dict[str, Any]) -> None:
    assert problems(rule["expr"]) == []
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/operate.md#{rule['alert'].lower()}"


def test_every_alert_is_in_the_guide_for_operators() -> None:
    guide = (REPOSITORY / "docs/operate.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", guide, re.MULTILINE)}
    missing = [rule["alert"] for rule in RULES if rule["alert"].lower() not in headings]
    assert missing == []


def test_every_figure_is_watched() -> None:
    shown = {name for panel in DASHBOARD["panels"] for target in panel["targets"] for name in used(target["expr"])}
    assert shown - OF_PROMETHEUS == EXPOSED.keys()


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("convelo_jobs_failed > 3", "convelo_jobs_failed is no figure"),
        ("rate(convelo_jobs[5m])", "convelo_jobs is no figure"),
        ('convelo_jobs_total{outcome="result"}', "has no label outcome"),
        ("sum by (end) (rate(convelo_job_seconds[5m]))", "convelo_job_seconds is no figure"),
        ("1 > 2", "it uses no figure"),
        ("vector(1) > 0", "it uses no figure"),
    ],
)
def test_figures_that_do_not_exist_are_found(expression: str, words: str) -> None:
    assert any(words in problem for problem in problems(expression)), problems(expression)


def test_the_dashboard_shows_figures_that_exist() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    places: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"] and panel["description"]
        # Not a data source of our own Grafana: whoever imports the dashboard chooses.
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
        for target in panel["targets"]:
            assert problems(target["expr"]) == [], panel["title"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & places, panel["title"]
        places |= covered


def test_numbers_of_the_alerts_are_those_of_the_limits() -> None:
    """What descriptions say about limits, and what the limits are."""
    service = (REPOSITORY / "crates/service/src/limits.rs").read_text()
    channel = (REPOSITORY / "crates/channel/src/limits.rs").read_text()

    def limit(source: str, name: str) -> str:
        found = re.search(rf"^pub const {name}: \w+ = (\d+);$", source, re.MULTILINE)
        assert found is not None, name
        return found[1]

    said = {rule["alert"]: rule["annotations"]["description"] for rule in RULES}
    assert f"At most {limit(service, 'MAXIMUM_WAITING_JOBS')} may wait" in said["ConveloJobsPileUp"]
    strangers, seated = limit(channel, "MAXIMUM_STRANGERS"), limit(channel, "MAXIMUM_SEATED")
    assert f"{strangers} without a seat in a job and {seated} with one" in said["ConveloConnectionsNearLimit"]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("not tested: promtool is not installed (Debian's package prometheus has it)")
    return subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yaml"),
        ("test", "rules", "alerts.test.yaml"),
        ("check", "config", "prometheus.yaml"),
    ],
    ids=" ".join,
)
def test_prometheus_accepts_the_files_and_the_alerts_fire(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_that_does_not_fire_is_found(tmp_path: Path) -> None:
    alerts = (PROMETHEUS / "alerts.yaml").read_text()
    (tmp_path / "alerts.yaml").write_text(alerts.replace("convelo_jobs_open > 400", "convelo_jobs_open > 500"))
    shutil.copy(PROMETHEUS / "alerts.test.yaml", tmp_path)
    done = promtool("test", "rules", str(tmp_path / "alerts.test.yaml"))
    assert done.returncode != 0 and "ConveloJobsPileUp" in done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in RULES}
