"""Cells, JSON and control characters."""

import json
import os

import pytest

from muelle.cli.output import cell, print_facts, print_json, print_table, printable, write_page
from muelle.errors import MuelleError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (3, "3"),
        (0.123456789, "0.123457"),
        (["a", 1, None], "a, 1, -"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_cells(value, expected):
    assert cell(value) == expected


def test_control_characters_are_shown_not_sent():
    assert printable("a\x1b[31mb\u202e") == "a\\x1b[31mb\\u202e"
    assert printable("año 12 µg") == "año 12 µg"


def test_json_has_null_for_what_is_no_number(capsys):
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": (True, None)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": [True, None]}


def test_json_is_ascii_whatever_the_names(capsys):
    print_json({"año": "\udcff"})
    assert capsys.readouterr().out.isascii()


def test_a_table_takes_brackets_literally_and_is_not_folded_in_a_pipe(capsys):
    long = "x" * 300
    print_table("features[0]", ("[bold]place", "n"), [("features[0][3]", 1), (long, 2)])
    out = capsys.readouterr().out
    assert "features[0]\n" in out
    assert "features[0][3]" in out
    assert long in out


def test_facts_without_a_value_are_left_out(capsys):
    print_facts("title", [("there", 1), ("not there", None)])
    out = capsys.readouterr().out
    assert "there" in out
    assert "not there" not in out


def test_a_page_replaces_the_one_before(tmp_path, capsys):
    path = tmp_path / "page.html"
    for text in ("one", "two"):
        write_page(path, text)
        assert path.read_text() == text
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]
    assert capsys.readouterr().err == 2 * f"wrote {path}\n"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_a_link_and_its_target_gets_the_page(tmp_path, there):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.html"
    if there:
        target.write_text("old")
    link = tmp_path / "page.html"
    link.symlink_to("elsewhere/real.html")
    write_page(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [item.name for item in target.parent.iterdir()] == ["real.html"]


def test_a_name_as_long_as_the_file_system_takes_it(tmp_path):
    path = tmp_path / (250 * "x" + ".html")
    write_page(path, "page")
    assert path.read_text() == "page"


def pipe(path):
    os.mkfifo(path)
    return path


def circle(path):
    path.symlink_to(path.name)
    return path


def link_to_a_pipe(path):
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))
    return path


@pytest.mark.parametrize(
    "make",
    [
        pipe,
        circle,
        link_to_a_pipe,
        lambda path: path.with_name(256 * "x"),
        lambda path: path / "page.html",
    ],
    ids=["pipe", "circle", "link to a pipe", "long name", "no folder"],
)
def test_where_no_page_can_be_everything_is_left_as_it_was(tmp_path, make):
    path = make(tmp_path / "page.html")
    before = {item: item.lstat().st_ino for item in tmp_path.iterdir()}
    with pytest.raises(MuelleError, match="can't be written: ") as caught:
        write_page(path, "page")
    assert str(caught.value).startswith(f"{path}: can't be written: ")
    assert {item: item.lstat().st_ino for item in tmp_path.iterdir()} == before
