"""API keys: which header counts, what is refused, and files that change, vanish or break."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path

import pytest

from muelle.errors import MuelleError, SettingsError
from service.auth import ApiKeys, AuthError, MissingKeyError, WrongKeyError, new_key


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def line_of(name: str, key: str) -> str:
    return f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("# who may ask\n\n" + line_of("alice", "A") + "  " + line_of("bob", "B"))
    return file


def test_a_new_key_is_accepted_under_its_name(tmp_path: Path) -> None:
    key, line = new_key("team-a.1")
    other, _ = new_key("team-a.1")
    assert len(key) >= 43
    assert key != other
    assert key not in line
    (tmp_path / "keys").write_text(line)
    assert ApiKeys(tmp_path / "keys").check(f"Bearer {key}", None) == "team-a.1"


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "-a", "ä", "a" * 64])
def test_a_new_key_needs_a_plain_name(name: str) -> None:
    with pytest.raises(SettingsError, match="key name"):
        new_key(name)


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "name"),
    [
        ("Bearer A", None, "alice"),
        ("bearer   B ", None, "bob"),
        (None, "B", "bob"),
        ("Basic QTpB", "A", "alice"),
        ("Bearer of-the-proxy", "B", "bob"),
        ("Bearer A", "", "alice"),
    ],
)
def test_either_header_carries_the_key(path: Path, authorization: str | None, x_api_key: str | None, name: str) -> None:
    assert ApiKeys(path).check(authorization, x_api_key) == name


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer  ", "Basic QTpB", "A"])
def test_no_key_is_missing(path: Path, authorization: str | None) -> None:
    with pytest.raises(MissingKeyError):
        ApiKeys(path).check(authorization, None)


@pytest.mark.parametrize("key", ["A ", "AB", "alice", "\xff\udcff", "x" * 100_000])
def test_a_wrong_key_is_refused_without_being_repeated(path: Path, key: str) -> None:
    with pytest.raises(WrongKeyError) as raised:
        ApiKeys(path).check(None, key)
    assert key not in str(raised.value)
    assert isinstance(raised.value, AuthError)
    assert isinstance(raised.value, MuelleError)


def test_one_name_may_have_an_old_and_a_new_key(path: Path) -> None:
    path.write_text(line_of("alice", "old") + line_of("alice", "new"))
    keys = ApiKeys(path)
    assert keys.check(None, "old") == keys.check(None, "new") == "alice"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("secret-key-itself\n", "line 1: expected"),
        ("# c\n\nalice sha256:abc\n", "line 3: expected"),
        (line_of("alice", "A") + "bob md5:" + "0" * 64, "line 2: expected"),
        (line_of("alice", "A").strip() + " extra", "line 1: expected"),
        (line_of("alice", "A") + line_of("bob", "A"), "line 2: the same key as in line 1"),
        ("# nobody\n", "at least one key"),
        ("#" * 1_048_577, "at most 1048576 bytes"),
    ],
)
def test_a_malformed_file_stops_start_up_with_the_line_but_not_its_text(path: Path, text: str, fault: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        ApiKeys(path)
    assert fault in str(raised.value)
    assert str(path) in str(raised.value)
    for secret in ("secret-key-itself", "sha256:abc", "md5:", "extra", hashlib.sha256(b"A").hexdigest()):
        assert secret not in str(raised.value)


def test_a_missing_file_stops_start_up(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        ApiKeys(tmp_path / "none")


def test_a_changed_file_counts_after_a_second(path: Path) -> None:
    clock = Clock()
    keys = ApiKeys(path, clock)
    path.write_text(line_of("carol", "C"))
    clock.now += 0.9
    assert keys.check(None, "A") == "alice"
    clock.now += 0.2
    assert keys.check(None, "C") == "carol"
    with pytest.raises(WrongKeyError):
        keys.check(None, "A")


def test_a_swapped_link_counts_although_size_and_time_are_the_same(tmp_path: Path) -> None:
    # The way in which Kubernetes updates a mounted secret: keys → ..data/keys, and ..data is renamed over.
    for version, key in (("v1", "A"), ("v2", "B")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(line_of("alice", key))
        os.utime(tmp_path / version / "keys", ns=(1, 1))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "keys").symlink_to("..data/keys")
    clock = Clock()
    keys = ApiKeys(tmp_path / "keys", clock)
    assert keys.check(None, "A") == "alice"
    (tmp_path / "..tmp").symlink_to("v2")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    clock.now += 2
    assert keys.check(None, "B") == "alice"
    with pytest.raises(WrongKeyError):
        keys.check(None, "A")


@pytest.mark.parametrize("damage", ["vanish", "malformed", "empty", "folder"])
def test_a_damaged_file_keeps_the_last_good_keys_and_is_logged_once(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    keys = ApiKeys(path, clock)
    good = path.read_text()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "vanish":
        path.write_text("" if damage == "empty" else "the-key-in-clear\n")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            clock.now += 2
            assert keys.check(None, "A") == "alice"
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        if damage == "folder":
            path.rmdir()
        path.write_text(good + line_of("carol", "C"))
        clock.now += 2
        assert keys.check(None, "C") == "carol"
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "the-key-in-clear" not in caplog.text
    assert hashlib.sha256(b"A").hexdigest() not in caplog.text


def test_a_file_that_comes_back_unchanged_counts_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    keys = ApiKeys(path, clock)
    path.rename(path.with_name("away"))
    clock.now += 2
    keys.check(None, "A")
    path.with_name("away").rename(path)
    clock.now += 2
    with caplog.at_level(logging.INFO):
        assert keys.check(None, "A") == "alice"
    assert caplog.records[-1].getMessage() == "API keys: read again, 2 in force"


def test_threads_always_find_their_key_while_the_file_changes(path: Path) -> None:
    ticks = iter(range(10**9))
    keys = ApiKeys(path, lambda: float(next(ticks)))  # every look is due
    failures: list[Exception] = []

    def ask(key: str, name: str) -> None:
        try:
            for _ in range(300):
                assert keys.check(None, key) == name
        except (AssertionError, AuthError) as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=pair) for pair in (("A", "alice"), ("B", "bob"))]
    for thread in threads:
        thread.start()
    for number in range(50):
        fresh = path.with_name("fresh")
        fresh.write_text(line_of("alice", "A") + line_of("bob", "B") + line_of("x", str(number)))
        fresh.replace(path)
    for thread in threads:
        thread.join()
    assert failures == []
