"""How far each worker is: a byte a slot, in memory that the arbiter and all workers share."""

from __future__ import annotations

import mmap
from collections.abc import Collection
from enum import IntEnum
from typing import Final

#: Far more than there are ever workers.
_SLOTS: Final = 1024


class State(IntEnum):
    """What the holder of a slot is at."""

    FREE = 0
    #: Loads, and doesn't listen yet.
    LOADING = 1
    #: Loads though nobody else answers: it listens meanwhile, or soon will, and says 503.
    FIRST = 2
    LOADED = 3
    #: Has answered as many requests as it may, and goes on until it is replaced.
    WORN = 4


SERVING: Final = (State.LOADED, State.WORN)


class Board:
    """The states of all slots; made in the arbiter, before it forks."""

    def __init__(self) -> None:
        self._states = mmap.mmap(-1, _SLOTS)

    def __getitem__(self, slot: int) -> State:
        return State(self._states[slot])

    def __setitem__(self, slot: int, state: State) -> None:
        self._states[slot] = state

    def any(self, state: State) -> bool:
        """Whether any slot is in this state."""
        return self._states.find(bytes([state]), 0) >= 0

    def keep(self, slots: Collection[int]) -> None:
        """Free all other slots: their workers are gone, however they went."""
        for slot, state in enumerate(self._states[:]):
            if state != State.FREE and slot not in slots:
                self._states[slot] = State.FREE
