"""``muelle serve`` and ``muelle api-key``."""

import hashlib
import json
import os
import sys

import pytest

from service.auth import new_key


@pytest.fixture
def started(monkeypatch):
    """What would be executed: command and environment."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda path, command, environ: calls.append((path, command, environ)))
    return calls


def own(environ):
    return {key: value for key, value in environ.items() if key.startswith("MUELLE_")}


def test_flags_become_variables(muelle, started, repository, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(new_key("alice")[1] + "\n")
    result = muelle(
        *("serve", "--models", repository, "--host", "127.0.0.1", "--port", "5000", "--workers", "3", "--threads", "1"),
        *("--engine", "onnx", "--model", "iris", "--allow-module", "a.b", "--allow-module", "c"),
        *("--api-keys", keys, "--log-level", "warning"),
    )
    assert result.exit_code == 0, result.output
    ((path, command, environ),) = started
    assert path == command[0] == sys.executable
    assert command[1:4] == ["-P", "-m", "service.server"]
    assert command[-1].endswith("gunicorn.conf.py")
    assert own(environ) == {
        "MUELLE_MODELS": str(repository),
        "MUELLE_HOST": "127.0.0.1",
        "MUELLE_PORT": "5000",
        "MUELLE_WORKERS": "3",
        "MUELLE_THREADS": "1",
        "MUELLE_ENGINE": "onnx",
        "MUELLE_DEFAULT_MODEL": "iris",
        "MUELLE_ALLOWED_MODULES": "a.b,c",
        "MUELLE_API_KEYS_FILE": str(keys),
        "MUELLE_LOG_LEVEL": "warning",
    }
    assert environ["PATH"] == os.environ["PATH"]


def test_variables_stay_and_flags_go_before_them(muelle, started, repository):
    env = {"MUELLE_MODELS": str(repository), "MUELLE_PORT": "1", "MUELLE_MAX_ROWS": "5", "MUELLE_API_KEY": "secret"}
    assert muelle("serve", "--port", "2", env=env).exit_code == 0
    found = own(started[0][2])
    assert found == {"MUELLE_MODELS": str(repository), "MUELLE_PORT": "2", "MUELLE_MAX_ROWS": "5"}


@pytest.mark.parametrize(
    ("arguments", "env", "text"),
    [
        (["--port", "70000"], {}, "MUELLE_PORT: expected a whole number from 1 to 65535, got '70000'"),
        (["--workers", "0"], {}, "MUELLE_WORKERS: expected"),
        (["--log-level", "loud"], {}, "MUELLE_LOG_LEVEL: expected one of"),
        ([], {"MUELLE_THREDS": "1"}, "did you mean MUELLE_THREADS?"),
    ],
)
def test_bad_settings_are_told_at_once(muelle, started, arguments, env, text):
    result = muelle("serve", *arguments, env=env)
    assert result.exit_code == 1
    assert text in result.stderr
    assert started == []


def test_a_missing_folder_is_pointed_out(muelle, started, tmp_path):
    result = muelle("serve", "--models", tmp_path / "nothing")
    assert result.exit_code == 0
    assert "nothing: no such folder" in result.stderr
    assert len(started) == 1


def test_several_folders_are_handed_on_and_told_when_none_exists(muelle, started, tmp_path):
    folders = f"{tmp_path}/none:{tmp_path}/neither"
    result = muelle("serve", "--models", folders)
    assert f"{tmp_path}/none, {tmp_path}/neither: no such folder" in result.stderr.replace("\n", "")
    assert own(started[0][2]) == {"MUELLE_MODELS": folders}
    assert muelle("serve", "--models", f"{folders}:{tmp_path}").stderr == ""


def test_the_settings_are_listed(muelle, started):
    result = muelle("serve", "--settings")
    assert result.exit_code == 0
    assert "MUELLE_MAX_BODY_BYTES" in result.stdout
    assert started == []


def test_an_api_key_and_its_line(muelle):
    found = json.loads(muelle("api-key", "billing", "--output", "json").stdout)
    assert found["line"] == f"billing sha256:{hashlib.sha256(found['key'].encode()).hexdigest()}"
    result = muelle("api-key", "billing")
    assert result.exit_code == 0
    assert "billing sha256:" in result.stdout
    assert found["key"] not in result.stdout


def test_an_api_key_needs_a_plain_name(muelle):
    result = muelle("api-key", "a b")
    assert result.exit_code == 1
    assert "key name: expected up to 63 letters" in result.stderr


def test_numerical_libraries_get_one_thread_a_worker_unless_told_otherwise(muelle, started, repository, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    muelle("serve", "--models", repository)
    environ = started[0][2]
    assert (environ["OPENBLAS_NUM_THREADS"], environ["OMP_NUM_THREADS"]) == ("1", "4")
