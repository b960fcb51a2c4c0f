"""The board: states of worker slots that all processes see."""

from __future__ import annotations

import subprocess
import sys

import pytest

from service.board import Board, State

FORK = """
import os
from service.board import Board, State
board = Board()
board[1] = State.FIRST
pid = os.fork()
if pid == 0:
    board[1] = State.LOADED if board[1] == State.FIRST else State.FREE
    os._exit(0)
os.waitpid(pid, 0)
print(board[1].name)
"""


def test_every_slot_is_free_at_first_and_keeps_what_it_is_told() -> None:
    board = Board()
    assert board[0] == board[1000] == State.FREE
    board[1000] = State.LOADED
    assert (board[1000], board[999]) == (State.LOADED, State.FREE)
    with pytest.raises(IndexError):
        board[100_000] = State.LOADED


def test_another_process_sees_and_changes_it() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "LOADED\n"), done.stderr


def test_it_knows_whether_any_is_in_a_state() -> None:
    board = Board()
    board[7] = State.LOADING
    assert [board.any(state) for state in (State.LOADING, State.FIRST)] == [True, False]


def test_the_slots_of_the_dead_are_freed() -> None:
    board = Board()
    for slot in (0, 1, 2):
        board[slot] = State.FIRST
    board.keep({1})
    assert [board[slot] for slot in (0, 1, 2)] == [State.FREE, State.FIRST, State.FREE]
