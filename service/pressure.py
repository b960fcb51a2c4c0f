"""How many requests a worker lets in, so that those it has let in are answered in time."""

from __future__ import annotations

import threading


class Pressure:
    """Counts the requests that a worker has let in; the gunicorn worker keeps it, `service.answering` asks it.

    A request is judged when it comes, not when a thread gets to it: with more callers than threads can serve, a thread
    would always find too many waiting behind the request that it is about to answer, and would turn away all of them.

    Parameters
    ----------
    limit : int
        The most requests to have in hand or waiting.

    Attributes
    ----------
    requests : int
        Let in and not answered yet. Only the worker's main thread changes it.
    """

    def __init__(self, limit: int) -> None:
        self.requests = 0
        self._limit = limit
        self._in_this_thread = threading.local()

    def let_in(self) -> bool:
        """Count a request that has just come, unless there are too many; returns whether it was counted."""
        if self.requests >= self._limit:
            return False
        self.requests += 1
        return True

    def let_out(self) -> None:
        """Count a request that was let in as answered."""
        self.requests -= 1

    def begin(self, was_let_in: bool) -> None:
        """Say, in the thread that is about to answer it, whether a request was let in."""
        self._in_this_thread.turned_away = not was_let_in

    @property
    def turned_away(self) -> bool:
        """Whether the request in this thread was not let in."""
        return getattr(self._in_this_thread, "turned_away", False)
