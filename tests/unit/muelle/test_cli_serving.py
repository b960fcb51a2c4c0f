"""Programs that the demo starts: their ends are noticed, and they don't outlive it."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from muelle.cli.serving import free_port, running
from muelle.errors import MuelleError


def test_one_that_ends_too_early_is_told_with_its_last_words():
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with (
        running("the program", command) as process,
        pytest.raises(MuelleError, match=r"the program ended with exit code 1:\nno such thing"),
    ):
        process.wait_for(lambda: False)


def test_one_that_runs_is_ended_with_the_block_also_by_an_error():
    command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
    with contextlib.suppress(ZeroDivisionError), running("the program", command) as process:
        process.wait_for(lambda: process.log().endswith("\n"))
        process.check()
        pid = int(process.log())
        assert Path(f"/proc/{pid}").exists()
        raise ZeroDivisionError
    assert not Path(f"/proc/{pid}").exists()


def test_a_port_that_is_taken_is_left_alone():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        usual = taken.getsockname()[1]
        assert free_port(usual) not in (usual, 0)
