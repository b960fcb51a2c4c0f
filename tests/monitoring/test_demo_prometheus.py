"""``muelle demo --monitor`` with the real Prometheus: it scrapes, its rules work, and all ends together."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from demo import Demo, ask

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _prometheus() -> None:
    if shutil.which("prometheus") is None:
        pytest.fail("prometheus is not on PATH: Debian's package prometheus has it")


def waited(read: Callable[[], Any], good: Callable[[Any], bool], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not good(found := read()):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    return found


def test_prometheus_sees_the_traffic_and_the_drift(repository: Path, tmp_path: Path) -> None:
    with Demo(repository, tmp_path, "--rate", "100", "--drift-after", "1", "--seconds", "240") as demo:
        url = demo.wait_for(r"Prometheus:  (http://\S+)").group(1)
        demo.wait_for("standard deviations larger")

        def query(expression: str) -> list[dict[str, Any]]:
            document = ask(f"{url}/api/v1/query?query={quote(expression, safe='')}")
            assert document["status"] == "success"
            return list(document["data"]["result"])

        up = waited(lambda: query('up{job="muelle"}'), bool, 30)
        assert up[0]["value"][1] == "1"
        assert up[0]["metric"]["namespace"] == "demo"
        excess = waited(
            lambda: query('muelle:feature_psi_excess:ratio1h{model="breast-cancer", feature="mean texture"} > 0.2'),
            bool,
            120,
        )
        assert len(excess) == 1
        groups = ask(f"{url}/api/v1/rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert {group["file"] for group in groups} == {
            str(path) for path in (REPOSITORY / "monitoring/rules").glob("*.yml")
        }
        assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
        alert = waited(
            lambda: list(ask(f"{url}/api/v1/alerts")["data"]["alerts"]),
            lambda alerts: any(alert["labels"].get("feature") == "mean texture" for alert in alerts),
            60,
        )
        # Others may fire on a machine that is slow.
        assert {a["state"] for a in alert if a["labels"].get("feature") == "mean texture"} == {"pending"}
        # What it says to look at is there to be seen.
        pointed_out = [line.split()[-1] for line in demo.output.splitlines() if "g0.expr=" in line]
        assert len(pointed_out) == 3
        for link in pointed_out:
            assert query(unquote(link.split("g0.expr=")[1].split("&")[0])), link
        children = demo.children()
        assert demo.end(signal.SIGINT) == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
