"""The checks under all JSON files: each value is what it should be, or the message says where it is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muelle.bundle import fields
from muelle.errors import ManifestError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@given(json_values)
def test_a_document_is_what_it_says(value):
    assert fields.document(json.dumps(value).encode(), "f.json") == value


@given(st.binary(max_size=40))
def test_any_bytes_are_a_document_or_a_manifest_error(data):
    try:
        fields.document(data, "f.json")
    except ManifestError as error:
        assert str(error).startswith("f.json: ")  # noqa: PT017  # both ways are right


@pytest.mark.parametrize(("data", "message"), [
    (b'{"a": 1, "b": 2, "a": 3}', "f.json: 'a' stands twice in one object"),
    (b'[{"deep": {"k": 1, "k": 1}}]', "f.json: 'k' stands twice in one object"),
    (b"[NaN]", "f.json: NaN is not JSON"),
    (b"[-Infinity]", "f.json: -Infinity is not JSON"),
    (b"[1e400]", "f.json: '1e400' is too large for a number"),
    (b"[-1e999999]", "f.json: '-1e999999' is too large for a number"),
    (b"[" + b"9" * 5000 + b"]", "f.json: not JSON"),
    (b'{"a": 1', "f.json: not JSON"),
    (b"[1] x", "f.json: not JSON"),
    (b"\xc3\x28", "f.json: not JSON"),
    (b'{"a":' * 50_000, "f.json: not JSON"),
])  # fmt: skip
def test_a_document_that_is_refused(data, message):
    with pytest.raises(ManifestError) as caught:
        fields.document(data, "f.json")
    assert str(caught.value).startswith(message)


VALUES = [None, True, False, 0, -1, 7, 10**400, 0.0, 1.5, float("inf"), float("nan"), "", "x", [], ["x"], {}, {"x": 1}]


@pytest.mark.parametrize(("check", "allowed"), [
    (fields.free_mapping, [{}, {"x": 1}]),
    (fields.sequence, [[], ["x"]]),
    (fields.text, ["x"]),
    (lambda value, where: fields.text(value, where, empty=True), ["", "x"]),
    (fields.optional_text, [None, "x"]),
    (lambda value, where: fields.choice(value, where, ("x", "y")), ["x"]),
    (fields.boolean, [True, False]),
    (fields.integer, [0, 7, 10**400]),
    (lambda value, where: fields.integer(value, where, minimum=-1), [0, -1, 7, 10**400]),
    (fields.number, [0, -1, 7, 0.0, 1.5]),
    (lambda value, where: fields.mapping(value, where, ("x",)), [{"x": 1}]),
])  # fmt: skip
def test_a_check_takes_its_kind_and_no_other(check, allowed):
    taken = []
    for value in VALUES:
        try:
            taken.append(check(value, "place"))
        except ManifestError as error:
            assert str(error).startswith("place: ")  # noqa: PT017  # both ways are right
    # repr, because 0 == False.
    assert [repr(float(v)) if check is fields.number else repr(v) for v in allowed] == [repr(v) for v in taken]


def test_scalars_name_the_item():
    assert fields.scalars(["x", 1, 1.5, True], "place") == ("x", 1, 1.5, True)
    with pytest.raises(ManifestError, match=r"^place\[1\]: expected a string, number or boolean, got None$"):
        fields.scalars([1, None], "place")
    with pytest.raises(ManifestError, match=r"^place: expected a list, got 'x'$"):
        fields.scalars("x", "place")


def test_all_missing_and_unknown_keys_are_named():
    with pytest.raises(ManifestError, match=r"^place: missing b, c$"):
        fields.mapping({"a": 1}, "place", ("a", "b", "c"))
    with pytest.raises(ManifestError, match=r"^place: unknown x, y$"):
        fields.mapping({"a": 1, "x": 1, "y": 1}, "place", ("a",))


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ManifestError) as caught:
        fields.integer("x" * 10_000, "place")
    assert len(str(caught.value)) < 120
