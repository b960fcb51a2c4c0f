"""Patience with a store: bounded, and with a clock that only the test moves."""

from __future__ import annotations

import threading

import pytest

from muelle.errors import StoreError, StoreUnreachableError
from muelle.store.retry import Patience


class Clock:
    """Seconds that pass only when `Patience` waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def patience_of(seconds: float, said: list[str]) -> tuple[Patience, Clock]:
    clock = Clock()
    patience = Patience(seconds, said.append, lambda: clock.now)
    patience.stopped.wait = clock.wait  # type: ignore[method-assign]
    return patience, clock


class Store:
    """Gives no answer so many times."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error or StoreUnreachableError("s3://b: nobody there")

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "answer"


def test_an_answer_is_not_asked_for_twice():
    said: list[str] = []
    patience, _ = patience_of(30, said)
    store = Store(0)
    assert patience.call(store) == "answer"
    assert (store.calls, said) == (1, [])


def test_a_store_that_comes_back_is_asked_again_and_it_is_said_once():
    said: list[str] = []
    patience, clock = patience_of(30, said)
    assert patience.call(Store(5)) == "answer"
    assert said == ["s3://b: nobody there; trying again for up to 30 seconds"]
    assert len(clock.waits) == 5


def test_the_waits_grow_to_a_bound_and_end_with_the_time():
    patience, clock = patience_of(60, [])
    store = Store(10_000)
    with pytest.raises(StoreUnreachableError, match="nobody there; gave up after 60 seconds"):
        patience.call(store)
    assert sum(clock.waits) == pytest.approx(60)
    assert all(0.125 <= wait <= 0.25 for wait in clock.waits[:1])
    assert all(2.5 <= wait <= 5 for wait in clock.waits[6:-1])
    # A last attempt is made when the time is over.
    assert store.calls == len(clock.waits) + 1


def test_without_patience_the_first_failure_counts():
    said: list[str] = []
    patience, clock = patience_of(0, said)
    with pytest.raises(StoreUnreachableError, match=r"^s3://b: nobody there$"):
        patience.call(Store(1))
    assert (said, clock.waits) == ([], [])


def test_what_will_not_get_better_is_not_tried_again():
    patience, clock = patience_of(30, [])
    store = Store(1, StoreError("403"))
    with pytest.raises(StoreError, match="403"):
        patience.call(store)
    assert (store.calls, clock.waits) == (1, [])


def test_stopped_it_waits_no_longer():
    patience = Patience(3600, lambda message: None)
    threading.Timer(0.05, patience.stopped.set).start()
    with pytest.raises(StoreUnreachableError, match="nobody there"):
        patience.call(Store(10_000))


def test_once_stopped_nothing_is_said_or_tried_again():
    said: list[str] = []
    patience = Patience(3600, said.append)
    patience.stopped.set()
    store = Store(10_000)
    with pytest.raises(StoreUnreachableError, match=r"^s3://b: nobody there$"):
        patience.call(store)
    assert (store.calls, said) == (1, [])
