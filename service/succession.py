"""Which workers are to be forked, and which told to stop: one goes only when another can answer in its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.board import SERVING, State


@dataclass(frozen=True)
class Member:
    """A worker that lives.

    Attributes
    ----------
    age : int
        Counts up from the first one that was forked: a larger one is a younger worker.
    told_to_stop : bool
        Whether it is on its way out already.
    """

    pid: int
    age: int
    state: State
    told_to_stop: bool = False


@dataclass(frozen=True)
class Decision:
    """How many workers to fork, and which to tell to stop."""

    fork: int
    stop: tuple[int, ...]


def decide(members: Iterable[Member], wanted: int, reloaded_age: int) -> Decision:
    """Decide what to do now; asked again every second, and whenever a worker has ended.

    Parameters
    ----------
    members : iterable of Member
        All workers.
    wanted : int
        How many there shall be.
    reloaded_age : int
        The youngest one's at the last reload: these and older ones are to be replaced.
    """
    known = sorted(members, key=lambda member: member.age)
    left = [member for member in known if not member.told_to_stop]
    going = [member for member in left if member.age <= reloaded_age]
    if not going and len(left) == len(known):
        # One worn worker after the other: a replacement takes memory beside the one that it replaces.
        going = [member for member in left if member.state == State.WORN][:1]
    staying = [member for member in left if member not in going]
    surplus = max(0, len(staying) - wanted)
    stop = [member.pid for member in staying[:surplus]]
    ready = any(member.state in SERVING for member in staying)
    serving = sum(member.state in SERVING for member in left)
    for member in going:
        if member.state not in SERVING:
            # It has nothing to answer with. Where nobody has, it stays to say so.
            if ready or (serving and member.state == State.LOADING):
                stop.append(member.pid)
        elif serving > wanted:
            serving -= 1
            stop.append(member.pid)
    return Decision(max(0, wanted - len(staying)), tuple(stop))
