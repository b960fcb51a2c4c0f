"""Why a worker ended, from its wait status and what the arbiter knows of it."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families as parse

from service.deaths import Deaths, Ending, ending
from service.metrics import exposed
from service.slots import SlotValues, install_slot_values, prepare_directory


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("status", "stuck", "expected"),
    [
        (signal.SIGSEGV, False, Ending("was killed by SIGSEGV", logging.ERROR, "signal")),
        (
            signal.SIGKILL,
            False,
            Ending("was killed by SIGKILL, perhaps because memory ran out", logging.ERROR, "signal"),
        ),
        (signal.SIGRTMIN + 1, False, Ending(f"was killed by signal {signal.SIGRTMIN + 1}", logging.ERROR, "signal")),
        (exited(1), False, Ending("exited with code 1", logging.ERROR, "exit")),
        (exited(3), False, Ending("exited with code 3", logging.ERROR, "boot")),
        (exited(4), False, Ending("exited with code 4", logging.ERROR, "boot")),
        (exited(1), True, Ending("exited with code 1, as it was stuck", logging.ERROR, "timeout")),
        (signal.SIGKILL, True, Ending("was killed by SIGKILL, as it was stuck", logging.ERROR, "timeout")),
        # As after a SIGTERM by hand.
        (exited(0), False, Ending("exited with code 0", logging.INFO, None)),
    ],
)
def test_a_worker_that_nobody_told_to_go_has_failed(status: int, stuck: bool, expected: Ending) -> None:
    assert ending(status, told=False, stuck=stuck) == expected


@pytest.mark.parametrize("stuck", [False, True])
@pytest.mark.parametrize(
    ("status", "level"), [(exited(0), logging.DEBUG), (exited(1), logging.WARNING), (signal.SIGKILL, logging.WARNING)]
)
def test_one_that_was_told_to_go_has_not(status: int, level: int, stuck: bool) -> None:
    found = ending(status, told=True, stuck=stuck)
    assert (found.failure, found.level) == (None, level)
    assert found.how.endswith("told to stop")


def test_every_reason_is_there_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "elsewhere")
    prepare_directory(tmp_path)
    install_slot_values(tmp_path, lambda: None)
    deaths = Deaths()
    assert _counted(tmp_path) == {"signal": 0, "exit": 0, "timeout": 0, "boot": 0}
    deaths.count("signal")
    deaths.count("signal")
    deaths.count("boot")
    assert _counted(tmp_path) == {"signal": 2, "exit": 0, "timeout": 0, "boot": 1}


def _counted(directory: Path) -> dict[str, float]:
    page, _ = exposed([SlotValues(directory)], None)
    (family,) = parse(page.decode())
    return {sample.labels["reason"]: sample.value for sample in family.samples}
