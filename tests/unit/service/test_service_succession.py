"""Which workers come and go: nobody goes before another can answer, and nobody stays who is not needed."""

from __future__ import annotations

import pytest

from service.board import State
from service.succession import Decision, Member, decide

STATES = {
    "loading": State.LOADING,
    "first": State.FIRST,
    "loaded": State.LOADED,
    "worn": State.WORN,
}


def members(text: str) -> list[Member]:
    """Return workers of age and process id 1, 2, …; a star marks one that was told to stop."""
    return [
        Member(number, number, STATES[word.removesuffix("*")], told_to_stop=word.endswith("*"))
        for number, word in enumerate(text.split(), start=1)
    ]


@pytest.mark.parametrize(
    ("text", "fork", "stop"),
    [
        # At the start, after a death, and when all is well.
        ("", 2, ()),
        ("first", 1, ()),
        ("loaded loading", 0, ()),
        ("loaded loaded", 0, ()),
        # SIGTTOU: the oldest goes.
        ("loaded loaded loaded", 0, (1,)),
        # A worn one serves until another has loaded in its place.
        ("worn loaded", 1, ()),
        ("worn loaded loading", 0, ()),
        ("worn loaded loaded", 0, (1,)),
        # One worn one after the other, though both are.
        ("worn worn", 1, ()),
        ("worn worn loading", 0, ()),
        ("worn worn loaded", 0, (1,)),
        ("worn* worn loaded", 0, ()),
        # A replacement that died is forked anew.
        ("worn loaded loading*", 0, ()),
        # Who is on the way out counts for nothing.
        ("loaded* loaded", 1, ()),
    ],
)
def test_without_a_reload(text: str, fork: int, stop: tuple[int, ...]) -> None:
    assert decide(members(text), 2, 0) == Decision(fork, stop)


@pytest.mark.parametrize(
    ("text", "fork", "stop"),
    [
        ("loaded loaded", 2, ()),
        # Both serve on while the new ones load.
        ("loaded loaded loading loading", 0, ()),
        ("loaded loaded loaded loading", 0, (1,)),
        ("loaded* loaded loaded loading", 0, ()),
        ("loaded* loaded loaded loaded", 0, (2,)),
        ("loaded loaded loaded loaded", 0, (1, 2)),
        # New ones that die are forked anew; the old ones are left alone.
        ("loaded loaded loading", 1, ()),
        # One that nobody has waited for yet need not finish.
        ("loaded loading loading loading", 0, (2,)),
        # Where nobody serves, the one that listens stays until one can answer.
        ("first loading", 2, ()),
        ("first loading loading loading", 0, ()),
        ("first loading loaded loading", 0, (1, 2)),
        ("worn worn loaded loaded", 0, (1, 2)),
        # What is worn among the new ones waits for its turn.
        ("loaded loaded worn loaded", 0, (1, 2)),
    ],
)
def test_after_a_reload(text: str, fork: int, stop: tuple[int, ...]) -> None:
    assert decide(members(text), 2, 2) == Decision(fork, stop)


def test_a_single_worker_is_replaced_without_a_gap() -> None:
    assert decide(members("worn"), 1, 0) == Decision(1, ())
    assert decide(members("worn loading"), 1, 0) == Decision(0, ())
    assert decide(members("worn loaded"), 1, 0) == Decision(0, (1,))
