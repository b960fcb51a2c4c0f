"""The end of a process that was forked: past the exit handlers, which are the arbiter's."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End this process here, once what it has logged is out.

    The C library's exit is not gone through: ONNX Runtime, imported in the arbiter, started a thread there, which a
    fork doesn't copy, and its destructors hang or abort over it. What can't be written, on a full disk or into a pipe
    that nobody reads, must not keep the process from ending: it would go on as a second arbiter.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
