"""A forked process ends where it is told to, whatever its outputs are connected to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from service.leaving import end_process

pid = os.fork()
if pid == 0:
    sys.stderr.write("what nobody can take")
    try:
        end_process(7)
    except OSError:
        pass
    # Only one that was not ended comes here.
    os.write(1, b"went on")
    os._exit(0)
os.write(1, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
os._exit(0)
"""


def test_a_full_disk_under_the_log_does_not_keep_a_process_from_ending() -> None:
    # With it nothing would be left to flush.
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=full, env=environ, check=True, timeout=60
        )
    assert done.stdout == b"7"
