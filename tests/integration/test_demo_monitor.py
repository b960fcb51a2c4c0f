"""``muelle demo --monitor`` without a Prometheus; tests/monitoring has it with one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from demo import Demo, ask

PATH_WITHOUT = "/nowhere"


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_page_shows_the_traffic_and_the_drift(repository: Path, tmp_path: Path) -> None:
    with Demo(repository, tmp_path, "--rate", "100", "--drift-after", "2", path=PATH_WITHOUT) as demo:
        demo.wait_for("no prometheus on the PATH")
        demo.wait_for("'mean texture' of breast-cancer is now 1.5 standard deviations larger")
        state = ask(f"{demo.url}/ui/state")
        before = {model["model"]: model for model in state["models"]}
        time.sleep(3)
        after = {model["model"]: model for model in ask(f"{demo.url}/ui/state")["models"]}
        counted = [
            now - then
            for now, then in zip(*(m["breast-cancer"]["bins"]["mean texture"] for m in (after, before)), strict=True)
        ]
        assert sum(counted) > 20
        # The last decile of the reference, where a tenth of the rows was, has most of them now.
        assert counted[-2] / sum(counted) > 0.35
        assert after["iris"]["requests"]["200"] > before["iris"]["requests"]["200"]
        children = demo.children()
        assert len(children) >= 3
        assert demo.end(signal.SIGINT) == 0
        assert gone(children)
    assert f"the page:    {demo.url}/ui" in demo.output
    assert " answered 200" in demo.output
    assert "without an answer" not in demo.output


def test_it_ends_by_itself_in_time(repository: Path, tmp_path: Path) -> None:
    with Demo(repository, tmp_path, "--seconds", "1", "--rate", "5", path=PATH_WITHOUT) as demo:
        assert demo.process is not None
        assert demo.process.wait(60) == 0
        assert "It ends after 1 s" in demo.output


# SIGHUP comes from a terminal that is closed; its children would take it for the word to reload.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_leaves_nobody_behind_when_it_is_ended(repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    with Demo(repository, tmp_path, path=PATH_WITHOUT) as demo:
        demo.wait_for("the page:")
        children = demo.children()
        demo.end(number)
        assert gone(children)


@pytest.mark.parametrize("program", ["/nowhere/prometheus", "prometheus-of-nobody"])
def test_a_prometheus_that_is_named_has_to_be_there(repository: Path, tmp_path: Path, program: str) -> None:
    with Demo(repository, tmp_path, "--prometheus", program, path=os.environ["PATH"]) as demo:
        assert demo.process is not None
        assert demo.process.wait(60) == 1
    assert f"--prometheus: {program} is no program that can be run" in demo.output
