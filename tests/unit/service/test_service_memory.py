"""What a server remembers: found by id and row, in all workers, after wraps, deaths and successors; bounded."""

from __future__ import annotations

import errno
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from muelle.bundle.signature import Feature, Output, Signature
from service.memory import Entry, Memory, ModelMemory, forget, model_key, row_key

ROWS = 100
ROW_BYTES = 48
MODEL = model_key("iris", "1", "sha256:aa")


def signature(dtype: str = "int64", classes: tuple[object, ...] | None = (0, 1, 2), width: int = 0) -> Signature:
    shape = (-1, width) if width else (-1,)
    return Signature("matrix", (Feature("x", "float64"),), (Output("predict", dtype, shape, classes),))  # type: ignore[arg-type]  # classes of any kind


def model(memory: Memory, of: Signature | None = None) -> ModelMemory:
    found = memory.of(of or signature(), MODEL)
    assert found is not None
    return found


def keep(memory: ModelMemory, request_id: str, *predictions: object) -> None:
    kind = object if isinstance(predictions[0], str) else None
    memory.remember(request_id, {"predict": np.array(predictions, kind)}, len(predictions))


def look(memory: Memory, request_id: str, row: int = 0) -> Entry | None:
    return memory.find([row_key(request_id, row)])[0]


def prediction(memory: Memory, request_id: str, row: int = 0) -> float | None:
    entry = look(memory, request_id, row)
    return None if entry is None else entry.prediction


def in_a_child(work: Callable[[], None]) -> int:
    """Run something in a fork, as workers are; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def test_each_row_of_each_request_is_found(tmp_path):
    memory = Memory(tmp_path, 0, ROWS)
    of_iris = model(memory)
    keep(of_iris, "one", 2)
    keep(of_iris, "three", 0, 1, 2)
    assert prediction(memory, "one") == 2
    assert [prediction(memory, "three", row) for row in range(3)] == [0, 1, 2]
    assert [prediction(memory, "one", 1), prediction(memory, "three", 3), prediction(memory, "other")] == [None] * 3
    entry = look(memory, "one")
    assert entry is not None
    assert entry.model == MODEL


def test_classes_of_every_kind_are_remembered_by_their_place(tmp_path):
    memory = Memory(tmp_path, 0, ROWS)
    words, flags = signature("string", ("no", "yes")), signature("bool", (False, True))
    keep(model(memory, words), "w", "yes")
    keep(model(memory, words), "ww", "no", "yes", "neither")
    keep(model(memory, flags), "f", True)
    assert [prediction(memory, "w"), prediction(memory, "f")] == [1, 1]
    assert [prediction(memory, "ww", row) for row in range(2)] == [0, 1]
    # A classifier that answers none of its classes leaves nothing to be compared to.
    assert math.isnan(prediction(memory, "ww", 2) or 0.0)


def test_numbers_are_remembered_as_they_are(tmp_path):
    memory = Memory(tmp_path, 0, ROWS)
    keep(model(memory, signature("float64", None)), "n", 1.5)
    keep(model(memory, signature("int64", None)), "m", 3, -4)
    assert [prediction(memory, "n"), prediction(memory, "m", 1)] == [1.5, -4]


@pytest.mark.parametrize("of", [signature("float64", None, 2), signature("string", None), signature("bool", None)])
def test_what_no_label_can_be_compared_to_is_not_remembered(tmp_path, of):
    assert Memory(tmp_path, 0, ROWS).of(of, MODEL) is None


def test_an_answer_without_a_prediction_is_passed_over(tmp_path):
    memory = Memory(tmp_path, 0, ROWS)
    model(memory).remember("p", {"predict_proba": np.array([[0.1, 0.9]])}, 1)
    assert look(memory, "p") is None


def test_the_oldest_rows_make_room_and_the_file_does_not_grow(tmp_path):
    memory = Memory(tmp_path, 0, ROWS)
    of_iris = model(memory)
    for number in range(ROWS * 2 + 7):
        keep(of_iris, f"r{number}", number % 3)
        keep(of_iris, f"q{number}", number % 3, 0)
    assert (tmp_path / "memory-w0.ring").stat().st_size == ROWS * ROW_BYTES
    kept = [n for n in range(ROWS * 2 + 7) if prediction(memory, f"r{n}") is not None]
    assert kept == list(range(ROWS * 2 + 7 - ROWS // 3 + (1 if ROWS % 3 == 0 else 0), ROWS * 2 + 7))


def test_of_a_request_that_is_too_long_the_last_rows_are_remembered(tmp_path):
    memory = Memory(tmp_path, 0, ROWS)
    many = np.arange(ROWS * 3) % 3
    model(memory).remember("long", {"predict": many}, len(many))
    found = [prediction(memory, "long", row) for row in range(ROWS * 3)]
    assert found == [None] * ROWS * 2 + many[ROWS * 2 :].tolist()


def test_of_two_requests_with_one_id_the_later_counts(tmp_path):
    first, second = Memory(tmp_path, 0, ROWS), Memory(tmp_path, 1, ROWS)
    keep(model(second), "same", 2)
    keep(model(first), "same", 0)
    keep(model(first), "same", 1)
    assert prediction(second, "same") == 1
    keep(model(second), "same", 0)
    assert prediction(first, "same") == 0


def test_a_row_is_labelled_once_and_its_successor_in_the_same_place_anew(tmp_path):
    memory = Memory(tmp_path, 0, ROWS)
    of_iris = model(memory)
    keep(of_iris, "same", 1)
    entry = look(memory, "same")
    assert entry is not None
    assert [entry.ring.label(entry) for _ in range(3)] == [True, False, False]
    for _ in range(ROWS):
        keep(of_iris, "same", 2)
    successor = look(memory, "same")
    assert successor is not None
    assert (successor.place, successor.prediction) == (entry.place, 2)
    assert [successor.ring.label(successor) for _ in range(2)] == [True, False]


def test_a_row_that_was_overwritten_while_its_label_was_on_its_way_unlabels_nobody(tmp_path):
    old, new = (Entry(Memory(tmp_path, 0, 2)._own, 1, sequence, 0, 0.0, 0.0) for sequence in (1, 3))
    assert [entry.ring.label(entry) for entry in (new, old, new)] == [True, False, False]


def test_other_workers_find_it_since_all_are_forked_from_one(tmp_path):
    """Python salts the hash of a text; in forks the salt is the same."""
    memory = Memory(tmp_path, 0, ROWS)

    def work() -> None:
        keep(model(Memory(tmp_path, 1, ROWS)), "from-a-child", 1, 2)

    assert in_a_child(work) == 0
    assert [prediction(memory, "from-a-child", row) for row in range(2)] == [1, 2]


def test_what_a_killed_worker_wrote_is_there_still_and_its_successor_goes_on(tmp_path):
    def die() -> None:
        of_iris = model(Memory(tmp_path, 0, ROWS))
        for number in range(150):
            keep(of_iris, f"old{number}", number % 3)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(die) == signal.SIGKILL
    memory = Memory(tmp_path, 0, ROWS)
    assert prediction(memory, "old149") == 149 % 3
    for number in range(30):
        keep(model(memory), f"new{number}", 1)
    assert [prediction(memory, f"old{number}") for number in (79, 80)] == [None, 80 % 3]
    assert prediction(memory, "new29") == 1


def test_half_written_rows_are_nobodys(tmp_path):
    """A worker that dies between a record and its key, or that writes just now."""
    memory = Memory(tmp_path, 0, ROWS)
    keep(model(memory), "whole", 1)
    entry = look(memory, "whole")
    assert entry is not None
    with (tmp_path / "memory-w0.ring").open("r+b") as file:
        file.seek(entry.place * 8)
        file.write(bytes(8))
    assert look(memory, "whole") is None


def test_threads_of_one_worker_lose_no_row(tmp_path):
    memory = Memory(tmp_path, 0, 5_000)
    of_iris = model(memory)

    def write(name: str) -> None:
        for number in range(500):
            keep(of_iris, f"{name}{number}", 1)
            keep(of_iris, f"{name}{number}-2", 1, 2)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    keys = [row_key(f"{name}{number}", 0) for name in "abc" for number in range(500)]
    keys += [row_key(f"{name}{number}-2", 1) for name in "abc" for number in range(500)]
    found = memory.find(keys)
    assert None not in found
    assert len({entry.sequence for entry in found if entry is not None}) == 3_000


def test_one_id_for_everything_is_found_as_fast_as_any(tmp_path):
    """Only the last is made an object of, or a hundred thousand would be for one label."""
    memory = Memory(tmp_path, 0, 20_000)
    for _ in range(40):
        model(memory).remember("always", {"predict": np.zeros(1_000, int)}, 1_000)
    (ring,) = memory._rings.values()
    wanted = np.unique(np.array([row_key("always", row) for row in range(10)], np.uint64))
    assert len(ring.find(wanted)) == 10


def test_keys_of_rows_differ_and_are_never_0():
    keys = {row_key(request_id, row) for request_id in ("a", "b", "") for row in range(10_000)}
    assert len(keys) == 30_000
    assert 0 not in keys
    assert max(keys) < 2**64


def test_a_bundle_that_was_replaced_under_its_version_is_another_model():
    assert len({model_key("iris", "1", digest) for digest in ("sha256:aa", "sha256:ab")}) == 2
    assert len({model_key("a", "bc", "d"), model_key("ab", "c", "d")}) == 2


def test_without_room_nothing_is_remembered_and_what_others_remember_is_found(tmp_path, caplog):
    keep(model(Memory(tmp_path, 1, ROWS)), "theirs", 2)
    # A file can't be made where a folder is, whoever one is.
    (tmp_path / "memory-w0.ring").mkdir()
    memory = Memory(tmp_path, 0, ROWS)
    assert memory.of(signature(), MODEL) is None
    assert prediction(memory, "theirs") == 2
    assert "slot 0 remembers no answers" in caplog.text


def test_a_full_disk_is_noticed_when_the_file_is_made_and_leaves_nothing(tmp_path):
    """Writing to a mapped file that the disk has no room for would kill the worker."""

    def work() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (ROWS * ROW_BYTES // 2, resource.RLIM_INFINITY))
        assert Memory(tmp_path, 0, ROWS).of(signature(), MODEL) is None
        assert list(tmp_path.glob("memory-w*")) == []

    assert in_a_child(work) == 0


MIB = 1024 * 1024


def disk(monkeypatch: pytest.MonkeyPatch, free: Callable[[int], int], blocks: int = 10**6) -> None:
    """Let statvfs say that so much is free, when it is asked for the first, second, ... time."""
    asked: list[object] = []

    def statvfs(path: object) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_blocks=blocks, f_bavail=free(len(asked) - 1) // 4096, f_frsize=4096)

    monkeypatch.setattr(os, "statvfs", statvfs)


def test_a_file_that_would_take_the_last_of_the_room_is_not_begun(tmp_path, monkeypatch, caplog):
    """The workers' metrics need it: without room for them, none starts."""
    disk(monkeypatch, lambda _: 10 * MIB)
    memory = Memory(tmp_path, 0, 3 * MIB // ROW_BYTES)
    assert memory.of(signature(), MODEL) is None
    assert list(tmp_path.iterdir()) == []
    assert f"[Errno {errno.ENOSPC}] expected room for 3145728 bytes and 8388608 to spare, 10485760 are" in caplog.text


def test_a_file_is_given_up_when_others_take_the_room_meanwhile(tmp_path, monkeypatch):
    written = []

    def free(asked: int) -> int:
        written.append((tmp_path / "memory-w0.ring").stat().st_size)
        return (20 - 3 * asked) * MIB

    disk(monkeypatch, free)
    # Writes are buffered: what is written is seen when it is the next part's turn, or not even then.
    assert Memory(tmp_path, 0, 8 * MIB // ROW_BYTES).of(signature(), MODEL) is None
    assert len(written) == 4
    assert max(written) <= 3 * MIB
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "blocks"), [(11 * MIB, 10**6), (0, 0)])
def test_with_enough_room_or_without_a_bound_the_file_is_made(tmp_path, monkeypatch, free, blocks):
    disk(monkeypatch, lambda _: free, blocks)
    assert Memory(tmp_path, 0, 3 * MIB // ROW_BYTES).of(signature(), MODEL) is not None


def test_every_byte_of_the_file_is_on_the_disk_from_the_start(tmp_path):
    Memory(tmp_path, 0, 10_000)
    status = (tmp_path / "memory-w0.ring").stat()
    assert status.st_blocks * 512 >= status.st_size == 10_000 * ROW_BYTES


def test_a_file_that_another_worker_is_making_is_left_for_later(tmp_path):
    memory = Memory(tmp_path, 0, ROWS)
    (tmp_path / "memory-w1.ring").write_bytes(bytes(100))
    assert look(memory, "x") is None
    keep(model(Memory(tmp_path, 1, ROWS)), "x", 1)
    assert prediction(memory, "x") == 1


def test_a_new_server_begins_with_nothing(tmp_path: Path):
    Memory(tmp_path, 0, ROWS)
    (tmp_path / "counter_w0.db").touch()
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["counter_w0.db"]
