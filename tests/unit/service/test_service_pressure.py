"""Who is let in, and that each thread knows it of its own request."""

from __future__ import annotations

import threading

from service.pressure import Pressure


def test_as_many_as_the_limit_are_let_in() -> None:
    pressure = Pressure(2)
    assert [pressure.let_in() for _ in range(4)] == [True, True, False, False]
    assert pressure.requests == 2
    pressure.let_out()
    assert [pressure.let_in() for _ in range(2)] == [True, False]


def test_a_thread_knows_of_its_own_request_alone() -> None:
    pressure = Pressure(1)
    assert not pressure.turned_away
    pressure.begin(False)
    seen: list[bool] = []

    def other() -> None:
        seen.append(pressure.turned_away)
        pressure.begin(True)
        seen.append(pressure.turned_away)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [False, False]
    assert pressure.turned_away
    pressure.begin(True)
    assert not pressure.turned_away
