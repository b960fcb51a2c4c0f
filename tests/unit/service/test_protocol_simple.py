"""The simple API's short cuts are only faster: they accept what the careful way accepts, with the same numbers.

The careful way is `_decode_carefully` on what `parse_strictly` returns; it looks at every value in Python. Whatever a
short cut would let through beside it is a wrong prediction; whatever it would refuse is a broken caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import InputError
from service.protocols import simple
from service.protocols.json_body import parse_strictly
from service.protocols.numbers import large_matrix

MAX_ROWS = 3000
LARGE = 8 * 1024
CLASSES = (0, 1)
OUTPUTS = (Output("predict", "int64", (-1,), CLASSES), Output("predict_proba", "float64", (-1, 2), CLASSES))
PROPERTY = settings(derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])


def matrix(width: int, dtype: str = "float64", *, nullable: bool = False) -> Signature:
    return Signature("matrix", tuple(Feature(f"x{i}", dtype, nullable) for i in range(width)), OUTPUTS)


SIGNATURES = {
    "two float64": matrix(2),
    "one float64": matrix(1),
    "two float32": matrix(2, "float32"),
    "two nullable": matrix(2, nullable=True),
}

Outcome = tuple[object, ...]


def outcome(decode: Callable[[], simple.SimpleRequest]) -> Outcome:
    """What was decoded, down to each number's bits, or what was wrong and where."""
    try:
        request = decode()
    except InputError as error:
        return "refused", error.code, error.where
    assert isinstance(request.data, np.ndarray)
    data = np.ascontiguousarray(request.data)
    # NaN's payload is nobody's business.
    bits = np.where(np.isnan(data), np.nan, data).tobytes()
    return "accepted", data.dtype, data.shape, bits, request.rows, request.field, request.single, request.outputs


def fast(body: bytes, signature: Signature) -> Outcome:
    return outcome(lambda: simple.decode(body, signature, MAX_ROWS))


def careful(body: bytes, signature: Signature) -> Outcome:
    return outcome(lambda: simple._decode_carefully(parse_strictly(body), signature, MAX_ROWS))


def padded(rows: list[str], filler: str, at: int) -> list[str]:
    """Put valid rows around some until the body is a large one."""
    count = LARGE // (len(filler) + 1) + 1
    at %= count + 1
    return [filler] * at + rows + [filler] * (count - at)


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1e3, 1e3).map(repr),
    st.integers(-1000, 1000).map(str),
    st.integers(2**53, 2**64 - 1).map(str),
    st.integers(-(2**63), -(2**53)).map(str),
    st.integers(-(10**330), 10**330).map(str),
    st.sampled_from(["-0.0", "-0", "0e0", "1E5", "1e-400", "5e-324", "3.5e38", "-3.5e38", "3.4028235e38", "1e308"]),
    st.sampled_from(["18446744073709551615", "18446744073709551616", "-9223372036854775809", "9007199254740993"]),
)
WORDS = [
    "true",
    "false",
    "null",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "01",
    "1.",
    ".5",
    "+1",
    "0x1",
    "1_0",
]
BRACKETS = ["[]", "{}", "[1]", "[[1]]", "[1,2]", "[1,2,3]", "[2,[3]]", "[[],1]", '{"x0":1}']
STRINGS = ['"1"', '"a"', '""', '"["', '"\\""', '"\\u005b"', '"true"', '"\\ud800"']
odd_tokens = st.sampled_from([*WORDS, *BRACKETS, *STRINGS])
tokens = st.integers(0, 9).flatmap(lambda n: numbers if n else odd_tokens)
spaces = st.sampled_from(["", "", "", " ", "\n", "\t\r\n "])


@st.composite
def row_texts(draw: st.DrawFn, width: int) -> str:
    """One row as JSON text: mostly right, now and then of another width or kind."""
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return draw(tokens)
    if kind == 1:
        names = (
            [f"x{i}" for i in range(width)]
            if draw(st.booleans())
            else draw(st.lists(st.sampled_from(["x0", "x1", "y"])))
        )
        return "{" + ",".join(f'"{name}":{draw(tokens)}' for name in names) + "}"
    length = width if kind > 2 else draw(st.integers(0, width + 2))
    space = draw(spaces)
    return f"[{space}" + f"{space},".join(draw(tokens) for _ in range(length)) + f"{space}]"


@st.composite
def bodies(draw: st.DrawFn, width: int) -> bytes:
    """A body as text: near enough to right that most kinds of wrong are met."""
    rows = draw(st.lists(row_texts(width), max_size=5))
    if draw(st.booleans()):
        rows = padded(rows, "[" + ",".join(["1.25"] * width) + "]", draw(st.integers(0, 10**6)))
    value = f"[{','.join(rows)}]" if draw(st.integers(0, 7)) else draw(row_texts(width))
    names = draw(
        st.sampled_from([["features"]] * 6 + [["input"]] * 3 + [["features", "input"], ["features"] * 2, ["x"], []])
    )
    fields = [f'"{name}":{value}' for name in names]
    if draw(st.integers(0, 7)) == 0:
        fields.append('"probabilities":' + draw(st.sampled_from(["true", "false", "null", "1"])))
    text = draw(spaces) + "{" + ",".join(fields) + "}" + draw(spaces)
    if draw(st.integers(0, 15)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.sampled_from(["", ",", "]", "}", "[", '"', "\x00", "é", " 1"])) + text[cut + 1 :]
    return text.encode()


@pytest.mark.parametrize("name", SIGNATURES)
@settings(PROPERTY, max_examples=250)
@given(data=st.data())
def test_short_cuts_and_the_careful_way_are_one(name: str, data: st.DataObject) -> None:
    signature = SIGNATURES[name]
    body = data.draw(bodies(len(signature.inputs)))
    assert fast(body, signature) == careful(body, signature)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["features", "input", "x0", ":"]), inner)
    ),
    max_leaves=12,
)


@settings(PROPERTY, max_examples=250)
@given(document=json_values | json_values.map(lambda value: {"features": value}))
def test_any_json_is_judged_as_the_careful_way_does(document: Any) -> None:
    body = json.dumps(document).encode()
    assert fast(body, SIGNATURES["two float64"]) == careful(body, SIGNATURES["two float64"])


@settings(PROPERTY, max_examples=150)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=60).filter(
        lambda v: len(v) % 2 == 0
    ),
    dtype=st.sampled_from(["float64", "float32"]),
)
def test_large_bodies_keep_each_number(values: list[float], dtype: str) -> None:
    """Not only equal to the careful way: equal to what was sent."""
    if dtype == "float32":
        values = [float(np.float32(value)) if abs(value) < 3e38 else 0.0 for value in values]
    rows = np.array(values * (LARGE // (2 * len(values)) + 1)).reshape(-1, 2)[:MAX_ROWS]
    body = b'{"features":' + orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY) + b"}"
    request = simple.decode(body, matrix(2, dtype), MAX_ROWS)
    assert isinstance(request.data, np.ndarray)
    assert request.data.dtype == dtype
    assert request.data.tobytes() == rows.astype(dtype).tobytes()


FILLER = "[1.5,2.5]"
#: Each is one or more rows that look right by some count, in a body of rows of two numbers.
SUSPICIOUS = {
    "nested list that makes up for its bracket": "[1,[2,3,4]]",
    "two nested lists": "[[1,2],[3,4]]",
    "nested one-element lists": "[[1],[2]]",
    "nested empty list beside four": "[1,2,3,[]]",
    "long row and short row": "[1,2,3],[4]",
    "empty row": "[]",
    "row of an object": "{}",
    "bare number": "7",
    "bare numbers": "7,8",
    "true": "[1,true]",
    "null": "[1,null]",
    "string of a number": '[1,"2"]',
    "overflowing number": "[1,1e400]",
    "overflowing integer": "[1," + "9" * 400 + "]",
    "NaN": "[1,NaN]",
    "Infinity": "[Infinity,1]",
    "integer of 64 bits unsigned": "[1,18446744073709551615]",
    "integer above 64 bits": "[1,18446744073709551616]",
    "negative zero": "[-0.0,-0]",
    "number too large for float32": "[1,3.5e38]",
    "trailing comma": "[1,2,]",
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("rows", SUSPICIOUS.values(), ids=SUSPICIOUS)
def test_rows_that_only_count_right_are_judged_one_by_one(rows: str, large: bool, dtype: str) -> None:
    listed = padded([rows], FILLER, 3) if large else [FILLER, rows]
    body = f'{{"features":[{",".join(listed)}]}}'.encode()
    assert (len(body) >= LARGE) == large
    signature = matrix(2, dtype)
    assert fast(body, signature) == careful(body, signature)


def test_the_large_way_is_taken_at_all() -> None:
    """Otherwise the tests above would compare the careful way with itself."""
    body = f'{{"input":[{",".join(padded([], FILLER, 0))}]}}'.encode()
    found = large_matrix(body, 2)
    assert found is not None
    field, rows = found
    assert field == "input"
    assert rows.shape == (body.count(b"[") - 1, 2)
    assert (rows == [1.5, 2.5]).all()


def test_one_parser_serves_many_bodies_without_mixing_them() -> None:
    bodies_of = {n: f'{{"features":[{",".join([f"[{n},{n}.5]"] * 1500)}]}}'.encode() for n in range(1, 6)}
    found = {n: large_matrix(body, 2) for n, body in bodies_of.items()}
    assert large_matrix(b'{"features":[[1,' + b" " * LARGE, 2) is None
    for n, item in found.items():
        assert item is not None
        assert (item[1] == [n, n + 0.5]).all()


def test_too_many_rows_are_counted_on_every_way() -> None:
    body = f'{{"features":[{",".join([FILLER] * (MAX_ROWS + 1))}]}}'.encode()
    for name in ("two float64", "two nullable"):
        assert fast(body, SIGNATURES[name]) == ("refused", "too_many_rows", "features")
    short = f'{{"features":[{",".join(["[1]"] * (MAX_ROWS + 1))}]}}'.encode()
    assert fast(short, SIGNATURES["one float64"]) == ("refused", "too_many_rows", "features")


@pytest.mark.parametrize("depth", [100, 490, 990, 1020, 5000, 200_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'], ids=["lists", "objects"])
def test_deep_nesting_is_refused_not_a_crash(depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    body = f'{{"features":{opening * depth}1{closing * depth}}}'.encode()
    for signature in SIGNATURES.values():
        kind, code, _ = fast(body, signature)
        assert kind == "refused"
        assert code in ("invalid_json", "invalid_shape", "invalid_value", "wrong_feature_count", "missing_feature")


REFUSED = {
    "empty body": (b"", "invalid_json", ""),
    "not UTF-8": (b'{"features":["\xff"]}', "invalid_json", ""),
    "half a surrogate pair": (b'{"features":["\\ud800",1]}', "invalid_json", ""),
    "half a surrogate pair as a key": (b'{"\\udfff":1,"features":[1,2]}', "invalid_json", ""),
    "not an object": (b"[[1,2]]", "invalid_shape", ""),
    "neither field": (b"{}", "missing_field", ""),
    "both fields": (b'{"features":[1,2],"input":[1,2]}', "missing_field", ""),
    "unknown field": (b'{"features":[1,2],"feature":[1,2]}', "unknown_field", ""),
    "field twice": (b'{"features":[1,2],"features":[3,4]}', "duplicate_name", ""),
    "name twice in a row": (b'{"features":{"x0":1,"x1":2,"x0":3}}', "duplicate_name", ""),
    "no rows": (b'{"features":[]}', "empty_batch", "features"),
    "a string": (b'{"features":"1,2"}', "invalid_shape", "features"),
    "one row too short": (b'{"features":[1]}', "wrong_feature_count", "features"),
    "a row too long": (b'{"features":[[1,2],[1,2,3]]}', "wrong_feature_count", "features[1]"),
    "a string in one row": (b'{"features":[1,"2"]}', "invalid_value", "features[1]"),
    "a string in a row of many": (b'{"features":[[1,2],[3,"4"]]}', "invalid_value", "features[1][1]"),
    "a value by name": (b'{"features":{"x0":1,"x1":null}}', "invalid_value", "features.x1"),
    "a value by name in a row": (b'{"input":[{"x0":1,"x1":2},{"x0":1,"x1":true}]}', "invalid_value", "input[1].x1"),
    "a name too few": (b'{"features":[{"x0":1}]}', "missing_feature", "features[0]"),
    "a name too many": (b'{"features":{"x0":1,"x1":2,"x2":3}}', "unknown_feature", "features"),
    "probabilities not a boolean": (b'{"features":[1,2],"probabilities":1}', "invalid_value", "probabilities"),
}


@pytest.mark.parametrize(("body", "code", "where"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_its_kind_and_place(body: bytes, code: str, where: str) -> None:
    assert fast(body, SIGNATURES["two float64"]) == ("refused", code, where)


def test_probabilities_of_a_model_without_them_are_refused() -> None:
    signature = Signature("matrix", (Feature("x0", "float64"),), (Output("predict", "float64", (-1,)),))
    with pytest.raises(InputError, match="no probabilities") as caught:
        simple.decode(b'{"features":[1],"probabilities":true}', signature, MAX_ROWS)
    assert caught.value.code == "unknown_output"


ACCEPTED = {
    "one bare row": (b'{"features":[1,2]}', 1, True, ("predict",)),
    "one row by name": (b'{"features":{"x1":2,"x0":1}}', 1, True, ("predict",)),
    "rows": (b'{"features":[[1,2],[1,2]]}', 2, False, ("predict",)),
    "rows by name": (b'{"features":[{"x0":1,"x1":2}]}', 1, False, ("predict",)),
    "probabilities": (b'{"features":[[1,2]],"probabilities":true}', 1, False, ("predict", "predict_proba")),
    "probabilities refused": (b'{"features":[[1,2]],"probabilities":false}', 1, False, ("predict",)),
    "spaces": (b' {\n"features" : [ 1 ,\t2 ] }\r\n', 1, True, ("predict",)),
    "an escaped key": (b'{"\\u0066eatures":[1,2]}', 1, True, ("predict",)),
}


@pytest.mark.parametrize(("body", "rows", "single", "outputs"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_allowed(body: bytes, rows: int, single: bool, outputs: tuple[str, ...]) -> None:
    request = simple.decode(body, SIGNATURES["two float64"], MAX_ROWS)
    assert (request.rows, request.single, request.outputs) == (rows, single, outputs)
    assert isinstance(request.data, np.ndarray)
    assert request.data.tolist() == [[1.0, 2.0]] * rows


def answer(body: bytes, answers: dict[str, np.ndarray], signature: Signature = SIGNATURES["two float64"]) -> Any:
    return json.loads(simple.encode(simple.decode(body, signature, MAX_ROWS), signature, answers))


def test_the_answer_has_the_form_of_the_question() -> None:
    one = {"predict": np.array([1])}
    assert answer(b'{"features":[1,2]}', one) == {"prediction": 1}
    assert answer(b'{"features":[[1,2]]}', one) == {"predictions": [1]}
    assert answer(b'{"input":[1,2]}', one) == {"output": [1]}
    both = one | {"predict_proba": np.array([[0.25, 0.75]])}
    assert answer(b'{"features":[1,2],"probabilities":true}', both) == {
        "prediction": 1,
        "probabilities": [0.25, 0.75],
        "classes": [0, 1],
    }
    assert answer(b'{"features":[[1,2]],"probabilities":true}', both)["probabilities"] == [[0.25, 0.75]]


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (np.array(["ja"], dtype=object), "ja"),
        (np.array([True]), True),
        (np.array([[1.5, 2.5]]), [1.5, 2.5]),
        (np.array([np.nan]), None),
        (np.array([-1]), -1),
    ],
    ids=["string", "boolean", "two outputs", "NaN", "outlier"],
)
def test_every_kind_of_answer_is_json(predicted: np.ndarray, expected: object) -> None:
    assert answer(b'{"features":[1,2]}', {"predict": predicted}) == {"prediction": expected}
    assert answer(b'{"features":[[1,2]]}', {"predict": predicted}) == {"predictions": [expected]}
    assert answer(b'{"input":[1,2]}', {"predict": predicted}) == {"output": [expected]}
