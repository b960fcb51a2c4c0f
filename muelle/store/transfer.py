"""What fetching and pushing share: several files at once, each tried again, all stopped when one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Final, Protocol, TypeVar

from muelle.errors import StoreUnreachableError
from muelle.store.retry import Patience

T = TypeVar("T")

#: A bundle is one or two large files and a few small ones.
PARALLEL_FILES: Final = 4
#: What a thread needs at most that isn't waiting for a server.
_LAST_SECONDS: Final = 1.0


class Progress(Protocol):
    """Who watches a transfer. Called by several threads at once."""

    def expect(self, size_bytes: int) -> None:
        """So much more is to come."""
        ...

    def advance(self, size_bytes: int) -> None:
        """So much has come; a negative figure takes back what must come once more."""
        ...

    def say(self, message: str) -> None:
        """Something to know."""
        ...


class Unwatched:
    """Nobody watches."""

    def expect(self, size_bytes: int) -> None:
        """Do nothing."""

    def advance(self, size_bytes: int) -> None:
        """Do nothing."""

    def say(self, message: str) -> None:
        """Do nothing."""


class Transfer:
    """A pool of threads that talk to a store, while this one can be interrupted.

    Parameters
    ----------
    patience : Patience
        For each operation.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._pool = ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="transfer")

    def __enter__(self) -> Transfer:
        """Start."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop what is still under way; after an interruption nothing is waited for."""
        self._patience.stopped.set()
        self._pool.shutdown(wait=kind is None or issubclass(kind, Exception), cancel_futures=True)

    def call(self, work: Callable[[], T]) -> T:
        """Return what one operation returns, tried again as patience allows; raises what it raises."""
        return self._pool.submit(self._patience.call, work).result()

    def each(self, works: Iterable[Callable[[], None]]) -> None:
        """Run several operations at once; raises what the first that failed raised."""
        running: list[Future[None]] = [self._pool.submit(self._patience.call, work) for work in works]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
        except BaseException:
            # Told to end. Whoever only waits for a server from here on has opened its file already.
            self._stop(running, seconds=_LAST_SECONDS)
            raise
        if failed := next((future for future in running if future in done and future.exception() is not None), None):
            self._stop(running, seconds=None)
            failed.result()

    def _stop(self, running: list[Future[None]], seconds: float | None) -> None:
        """Let nobody write any more where the caller is about to clean up; all stop at their next piece."""
        self._patience.stopped.set()
        for future in running:
            future.cancel()
        wait(running, timeout=seconds)

    def until_stopped(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass chunks on as long as they are wanted."""
        for chunk in chunks:
            if self._patience.stopped.is_set():
                raise StoreUnreachableError("stopped")
            yield chunk
