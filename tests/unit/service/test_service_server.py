"""The main module: what stops it at once, and what the arbiter holds for all workers to come."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import values

from service.auth import new_key
from service.command import gunicorn_command
from service.server import Application
from service.settings import Settings


def start(**environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")}
    return subprocess.run(
        gunicorn_command(), env=inherited | environ, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MUELLE_WORKERS", "no", "MUELLE_WORKERS: expected a whole number of processes, 1 or more, got 'no'"),
        (
            "MUELLE_METRICS_PORT",
            "8080",
            "MUELLE_METRICS_PORT: expected another port than the server's own, got 8080",
        ),
        ("MUELLE_API_KEYS_FILE", "/nowhere/keys", "API keys: /nowhere/keys can't be read: No such file or directory"),
    ],
)
def test_a_bad_setting_ends_it_with_one_sentence(key: str, value: str, message: str) -> None:
    done = start(**{key: value})
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {message}\n")


def test_workers_are_forked_with_the_keys_and_the_selection_of_the_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the configuration sets for the whole process is put back at the end.
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    for name in ("PROMETHEUS_MULTIPROC_DIR", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("MUELLE_METRICS_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", gunicorn_command()[3:])
    keys = tmp_path / "keys"
    keys.write_text(new_key("old")[1])
    application = Application(Settings(api_keys_file=keys))
    first = application._selection_file()
    assert first == tmp_path / "selection-0.json"
    first.touch()
    application.forget_selection()
    assert (first.exists(), application._selection_file()) == (False, tmp_path / "selection-1.json")
    # Nobody had written it.
    application.forget_selection()
    key, line = new_key("new")
    keys.write_text(line)
    assert application._keys is not None
    application._keys._looked = -10.0
    application.look_at_keys()
    assert application._keys.check(None, key) == "new"


def test_without_keys_there_is_nothing_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    for name in ("PROMETHEUS_MULTIPROC_DIR", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setattr(sys, "argv", gunicorn_command()[3:])
    Application(Settings()).look_at_keys()
