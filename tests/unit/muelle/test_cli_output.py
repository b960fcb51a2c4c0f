"""Cells, JSON and control characters."""

import json

import pytest

from muelle.cli.output import cell, print_facts, print_json, print_table, printable


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
