"""JSON log lines, gunicorn's logger, and the access log on real pipes."""

from __future__ import annotations

import fcntl
import json
import logging.config
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanContext

from service.logs import AccessLog, JsonFormatter, log_config
from service.spans import Trace

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def formatted(message: object = "hello %s", args: tuple[Any, ...] = ("world",), **attributes: Any) -> dict[str, Any]:
    record = logging.LogRecord("service.x", logging.WARNING, __file__, 1, message, args, None)
    vars(record).update(attributes)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    parsed: dict[str, Any] = json.loads(line)
    return parsed


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def write(log: AccessLog, **changes: Any) -> None:
    line: dict[str, Any] = {"request_id": "r1", "method": "POST", "path": "/predict", "status": 200}
    log.write(**line | {"duration_seconds": 0.0012345678} | changes)


def test_a_record_has_the_fixed_keys() -> None:
    line = formatted(created=1_700_000_000.9876)
    assert line == {
        "time": "2023-11-14T22:13:20.987Z",
        "level": "warning",
        "logger": "service.x",
        "message": "hello world",
    }


def test_request_and_model_are_added_when_given_and_nothing_else() -> None:
    line = formatted(request_id="r1", model="iris", version="2", password="secret")
    assert (line["request_id"], line["model"], line["version"]) == ("r1", "iris", "2")
    assert "secret" not in str(line)


def test_an_error_carries_its_stack_in_one_line() -> None:
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        line = formatted(exc_info=sys.exc_info())
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: bad\nvalue")


def test_what_is_no_utf8_is_escaped() -> None:
    assert formatted("file %s", ("\udcff",))["message"] == "file \\udcff"
    assert formatted("x", (), model=Path("m"))["model"] == "m"


def test_a_request_in_a_trace_has_its_ids(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1])
    context = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0x07AD6B7169203331, False)
    write(log, trace=Trace(context, None))
    write(log)
    traced, plain = (json.loads(line) for line in os.read(pipe[0], 65536).splitlines())
    assert (traced["trace_id"], traced["span_id"]) == ("0af7651916cd43dd8448eb211c80319c", "07ad6b7169203331")
    assert not {"trace_id", "span_id"} & set(plain)


def test_gunicorn_logs_json_to_standard_error_and_no_access_lines() -> None:
    script = """
import logging.config
from gunicorn.config import Config
from service.logs import GunicornLogger, log_config
config = Config()
config.set("logconfig_dict", log_config("info"))
config.set("logger_class", "service.logs.GunicornLogger")
assert config.logger_class is GunicornLogger
log = config.logger_class(config)
log.info("Listening at: %s", "x")
log.debug("not this")
log.access(None, None, {}, None)
assert not log.access_log_enabled
logging.getLogger("service.y").warning("mine")
log.setup(config)  # what a reload does
log.error("once")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["level"], line["message"]) for line in lines] == [
        ("gunicorn.error", "info", "Listening at: x"),
        ("service.y", "warning", "mine"),
        ("gunicorn.error", "error", "once"),
    ]


def test_the_level_is_taken_over() -> None:
    assert log_config("debug")["root"]["level"] == "DEBUG"
    script = """
import logging.config
from service.logs import log_config
logging.config.dictConfig(log_config("error"))
logging.getLogger("a").warning("w")
logging.error("e")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["e"]


def test_an_access_line_says_what_happened(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    write(AccessLog(writer), model="iris", version="1", bytes_in=10, bytes_out=20, rows=3, caller="alice")
    text = os.read(reader, 65536)
    assert text.endswith(b"}\n")
    line = json.loads(text)
    assert TIME.fullmatch(line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "service.access",
        "message": "request",
        "request_id": "r1",
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "duration_seconds": 0.001235,
        "bytes_in": 10,
        "bytes_out": 20,
        "model": "iris",
        "version": "1",
        "rows": 3,
        "caller": "alice",
    }


def test_query_strings_and_long_or_hostile_texts_stay_out(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = AccessLog(writer)
    for path in ("/p?key=secret", "/\x00\n\x1b[31m" * 500, "/\ud800" * 500, "/\U0001f600" * 500):
        write(log, path=path, request_id="\x01" * 5000, method="A" * 500)
        text = os.read(reader, 65536)
        assert text.count(b"\n") == 1
        assert len(text) < 4096
        assert b"secret" not in text
        assert b"\x1b" not in text
        json.loads(text)
    assert log.dropped == 0


def test_a_full_pipe_drops_lines_and_says_how_many(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    log = AccessLog(writer)
    for _ in range(100):  # far more than one page holds; a write that blocked would hang here
        write(log)
    assert 0 < log.dropped < 100
    missing = log.dropped
    kept = os.read(reader, 65536).splitlines()
    assert len(kept) == 100 - missing
    write(log)
    assert json.loads(os.read(reader, 65536))["dropped"] == missing
    write(log)
    assert "dropped" not in json.loads(os.read(reader, 65536))


def test_a_pipe_without_reader_or_a_closed_one_is_survived(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = AccessLog(writer)
    os.close(reader)
    write(log)
    os.close(writer)
    write(log)
    assert log.dropped == 2


def test_lines_of_several_threads_stay_whole(tmp_path: Path) -> None:
    def work(log: AccessLog, name: str) -> None:
        for _ in range(500):
            write(log, request_id=name)

    with (tmp_path / "log").open("wb") as file:
        log = AccessLog(file.fileno())
        threads = [threading.Thread(target=work, args=(log, name)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(line["request_id"] for line in lines) == sorted("abcd" * 500)
