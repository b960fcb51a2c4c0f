"""Asking a store again that gave no answer: for a bounded time, less and less often."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from muelle.errors import StoreUnreachableError

T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.25
#: A server that comes back is noticed this soon at the latest.
_LONGEST_WAIT_SECONDS: Final = 5.0


class Patience:
    """How long to go on, and a way to stop at once.

    Parameters
    ----------
    seconds : float
        From an operation's first failure on; 0 means that the first failure counts.
    say : callable
        Takes a line for the person who waits.
    clock : callable
        Seconds that only grow.
    """

    def __init__(self, seconds: float, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._say = say
        self._clock = clock
        #: Set when the result is no longer wanted: nothing is tried again, and who copies looks at it now and then.
        self.stopped = threading.Event()

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which is called again as long as it raises `StoreUnreachableError`.

        Raises
        ------
        StoreUnreachableError
            The last one, when the time is over.
        """
        deadline = None
        longest = _FIRST_WAIT_SECONDS
        while True:
            try:
                return work()
            except StoreUnreachableError as error:
                if self.stopped.is_set():
                    raise
                now = self._clock()
                if deadline is None:
                    deadline = now + self._seconds
                    if self._seconds:
                        self._say(f"{error}; trying again for up to {self._seconds:g} seconds")
                elif now >= deadline:
                    raise StoreUnreachableError(f"{error}; gave up after {self._seconds:g} seconds") from error
                # Jitter: many pods that start together must not come back together.
                wait = longest * random.uniform(0.5, 1)  # noqa: S311  # no secret
                if now >= deadline or self.stopped.wait(min(wait, deadline - now)):
                    raise
                longest = min(2 * longest, _LONGEST_WAIT_SECONDS)
