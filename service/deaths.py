"""How workers ended, and whether that was a failure: ``muelle_worker_failures_total{reason}``, kept by the arbiter.

A worker that the arbiter told to stop (reloaded, worn, one too many, the server's end) has not failed, whatever its
exit code; nor has one that left in good order, as after a SIGTERM by hand.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import Final, Literal, NamedTuple, get_args

from gunicorn.arbiter import Arbiter
from prometheus_client import CollectorRegistry, Counter

Failure = Literal["signal", "exit", "timeout", "boot"]

#: What gunicorn's workers exit with when they could not start.
_NOT_BOOTED: Final = (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR)


class Ending(NamedTuple):
    """How a worker ended.

    Attributes
    ----------
    how : str
        For the log, behind the worker's name.
    level : int
        Of that log line.
    failure : str or None
        ``signal``: killed (SIGKILL is most often the memory limit); ``exit``: ended with an error; ``timeout``: stuck,
        so the arbiter killed it; ``boot``: could not start. None when it is none.
    """

    how: str
    level: int
    failure: Failure | None


def ending(status: int, *, told: bool, stuck: bool) -> Ending:
    """Judge the end of a worker.

    Parameters
    ----------
    status : int
        From ``os.waitpid``.
    told : bool
        Whether it had been told to stop.
    stuck : bool
        Whether the arbiter has killed it because it no longer said that it lives.
    """
    code = os.waitstatus_to_exitcode(status)
    how = f"exited with code {code}" if code >= 0 else f"was killed by {signal_name(-code)}"
    if told:
        # In good order, or at the end of its patience.
        return Ending(f"{how}, told to stop", logging.DEBUG if code == 0 else logging.WARNING, None)
    if stuck:
        return Ending(f"{how}, as it was stuck", logging.ERROR, "timeout")
    if code == 0:
        return Ending(how, logging.INFO, None)
    if code == -signal.SIGKILL:
        return Ending(f"{how}, perhaps because memory ran out", logging.ERROR, "signal")
    return Ending(how, logging.ERROR, "signal" if code < 0 else "boot" if code in _NOT_BOOTED else "exit")


def signal_name(number: int) -> str:
    """Return a signal's name; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Deaths:
    """The counter, at 0 for each reason from the start; made in the arbiter when the metrics folder is ready."""

    def __init__(self) -> None:
        failures = Counter(
            "muelle_worker_failures_total",
            "Workers that ended without having been told to.",
            ("reason",),
            registry=CollectorRegistry(),
        )
        self._failures = {reason: failures.labels(reason) for reason in get_args(Failure)}

    def count(self, reason: Failure) -> None:
        """Count a worker that has failed."""
        self._failures[reason].inc()
