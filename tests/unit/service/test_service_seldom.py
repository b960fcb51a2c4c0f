"""A library's log in ours: bounded, and without the values of headers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from service.seldom import LibraryLog, Seldom

QUIET = logging.getLogger("some_library.exporter.http")
SECRETIVE = logging.getLogger("some_library.util")


class Said(logging.Handler):
    """What comes to our log; pytest's own way listens to a library's logger that gives nothing on, too."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


@pytest.fixture
def said() -> Iterator[Said]:
    handler = Said()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def seldom() -> Iterator[Seldom]:
    made = Seldom("some_library", ("some_library.exporter.",))
    yield made
    made.close()


def test_the_same_message_is_said_once_whatever_its_values(seldom: Seldom, said: Said) -> None:
    for number in range(1000):
        QUIET.warning("attempt %d failed", number)
    QUIET.error("gave up after %d", 1000)
    assert said.messages == ["attempt 0 failed", "gave up after 1000"]


def test_after_a_while_it_is_said_again_with_how_often_it_was_not(
    seldom: Seldom, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for _ in range(5):
        QUIET.warning("100%% of %s failed", "all")
    now += 61
    QUIET.warning("100%% of %s failed", "all")
    now += 61
    QUIET.warning("100%% of %s failed", "all")
    assert said.messages == ["100% of all failed", "100% of all failed (and 4 times before)", "100% of all failed"]


def test_values_are_quoted_only_where_they_are_no_headers(seldom: Seldom, said: Said) -> None:
    try:
        raise ValueError("secret")
    except ValueError:
        SECRETIVE.exception("Not a header (%s): %s", "authorization", "secret")
    QUIET.warning("no answer from %s", "collector")
    assert said.messages == ["Not a header", "no answer from collector"]
    assert "secret" not in str(said.messages)


def test_a_library_that_never_says_the_same_is_bounded(seldom: Seldom, said: Said) -> None:
    for number in range(5000):
        QUIET.warning(f"attempt {number}")
    assert len(said.messages) == 256


def test_the_library_has_its_log_back_at_the_end(said: Said) -> None:
    log = LibraryLog("some_library", ("some_library.exporter.",))
    QUIET.info("nothing to see")
    QUIET.warning("something")
    SECRETIVE.warning("not a header: %s", "secret")
    log.close()
    assert log.messages == ["something", "not a header"]
    assert said.messages == []
    QUIET.warning("after")
    assert said.messages == ["after"]
    assert log.messages == ["something", "not a header"]
