"""The simple API at a real server: a caller's fault gets a 4xx that names its kind and place, and what was expected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support import Answer, Server

from muelle.bundle import save

ROW = "[5.1,3.5,1.4,0.2]"
NAMES = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
NAMED = dict(zip(NAMES, (5.1, 3.5, 1.4, 0.2), strict=True))
JSON = {"Content-Type": "application/json"}


def ask(server: Server, body: bytes | str, path: str = "/models/iris/predict") -> Answer:
    return server.request("POST", path, body, JSON)


def features(*rows: str) -> str:
    return f'{{"features":[{",".join(rows)}]}}'


def named(**changes: Any) -> str:
    """One row by name; a change to None takes the name away."""
    row = NAMED | {name.replace("_", " "): value for name, value in changes.items()}
    return json.dumps({"features": row})


def refusal(answer: Answer, status: int = 400) -> tuple[str, str]:
    """The code and the message of an error of the contract's form."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"error", "code"}
    assert answer.headers["x-request-id"]
    return answer.json["code"], answer.json["error"]


NOT_JSON = {
    "empty": (b"", "the body is empty"),
    "text": (b"5.1,3.5,1.4,0.2", "line 1, column 4"),
    "form": (b"features=5.1&features=3.5", "not JSON"),
    "single quotes": (b"{'features': [1,2,3,4]}", "not JSON"),
    "trailing comma": (b'{"features":[1,2,3,4,]}', "not JSON"),
    "cut off": (b'{"features":[1,2,3', "not JSON"),
    "two documents": (b'{"features":[1,2,3,4]}{}', "not JSON"),
    "not UTF-8": (b'{"features":["\xe9",2,3,4]}', "UTF-8"),
    "UTF-16": ('{"features":[1,2,3,4]}'.encode("utf-16"), "UTF-8"),
    "a null byte": (b'{"features":[1,2,3,4]}\x00', "not JSON"),
    "NaN": (features("[NaN,1,1,1]"), "NaN is not JSON; send null"),
    "Infinity": (features("[Infinity,1,1,1]"), "Infinity is not JSON"),
    "-Infinity": (features("[1,1,-Infinity,1]"), "-Infinity is not JSON"),
    "leading nought": (features("[01,1,1,1]"), "not JSON"),
    "half a surrogate pair": (features('["\\ud800",1,1,1]'), "surrogate"),
    "an integer of 5,000 digits": (features("[" + "9" * 5000 + ",1,1,1]"), "too many digits"),
    "nested 100,000 deep": (b'{"features":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
}


@pytest.mark.parametrize(("body", "message"), NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused_with_its_place(demo_server: Server, body: bytes | str, message: str) -> None:
    code, error = refusal(ask(demo_server, body))
    assert code == "invalid_json"
    assert message in error


OTHER_SHAPES = {
    "null": ("null", "invalid_shape", "expected an object"),
    "a number": ("5.1", "invalid_shape", "expected an object"),
    "a string": ('"features"', "invalid_shape", "expected an object"),
    "a bare row": (ROW, "invalid_shape", 'expected an object such as {"features": [sepal length (cm)'),
    "a list of objects": ('[{"features":[1,2,3,4]}]', "invalid_shape", "expected an object"),
    "no field": ("{}", "missing_field", "expected either features or input, neither was given"),
    "both fields": (f'{{"features":{ROW},"input":{ROW}}}', "missing_field", "both were given"),
    "another API's field": (f'{{"instances":[{ROW}]}}', "unknown_field", 'unknown field "instances"'),
    "a misspelt field": (f'{{"feature":{ROW}}}', "unknown_field", "known are features, input, probabilities"),
    "a field too many": (f'{{"features":{ROW},"x":1}}', "unknown_field", 'unknown field "x"'),
    "features null": ('{"features":null}', "invalid_shape", "features: expected a list"),
    "features a number": ('{"features":5.1}', "invalid_shape", "got 5.1"),
    "features a string": ('{"features":"5.1"}', "invalid_shape", 'got "5.1"'),
    "features true": ('{"features":true}', "invalid_shape", "got true"),
    "three levels": (f'{{"features":[[{ROW}]]}}', "wrong_feature_count", "features[0]: expected 4 features"),
    "rows of a nested list": (features("[[1],[2],[3],[4]]"), "invalid_value", "features[0][0]: expected a number"),
    "ragged": (features(ROW, "[1,2,3]"), "wrong_feature_count", "features[1]: expected 4 features"),
    "ragged at the end": (features(*[ROW] * 999, "[1,2,3]"), "wrong_feature_count", "features[999]"),
    "nested in a large body": (features(*[ROW] * 999, "[1,2,3,[4,5,6,7,8]]"), "invalid_value", "features[999][3]"),
    "a number among rows": (features(ROW, "1"), "invalid_shape", "features[1]: expected a row"),
    "a row among numbers": (features("1", ROW), "invalid_shape", "features[0]: expected a row"),
    "null among rows": (features(ROW, "null"), "invalid_shape", "(a list or an object), got null"),
    "lists and objects": (features(ROW, json.dumps(NAMED)), "invalid_shape", "all rows to be lists or all to be obj"),
    "empty batch": ('{"features":[]}', "empty_batch", "features: expected at least one row"),
    "empty batch of input": ('{"input":[]}', "empty_batch", "input: expected at least one row"),
    "an empty row": ('{"features":[[]]}', "wrong_feature_count", "features[0]: expected 4 features"),
    "an empty object": ('{"features":{}}', "missing_feature", "features: missing sepal length (cm)"),
    "probabilities 1": (f'{{"features":{ROW},"probabilities":1}}', "invalid_value", "probabilities: expected true"),
    "probabilities null": (f'{{"features":{ROW},"probabilities":null}}', "invalid_value", "got null"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code", "message"), OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_json_of_another_shape_is_refused(demo_server: Server, body: str, code: str, message: str) -> None:
    found, error = refusal(ask(demo_server, body))
    assert found == code
    assert message in error


@pytest.mark.parametrize(
    ("form", "count"),
    [(form, n) for form in ("bare row", "row of a batch", "input") for n in (1, 3, 5, 30, 10_000)]
    + [("row of a batch", 0)],
)
def test_a_wrong_number_of_features_says_how_many_and_which_were_expected(
    demo_server: Server, form: str, count: int
) -> None:
    row = [1.5] * count
    body: dict[str, Any] = {
        "bare row": {"features": row},
        "row of a batch": {"features": [row]},
        "input": {"input": row},
    }
    code, error = refusal(ask(demo_server, json.dumps(body[form])))
    where = {"bare row": "features", "row of a batch": "features[0]", "input": "input"}[form]
    assert code == "wrong_feature_count"
    assert error == f"{where}: expected 4 features, got {count}; in order: {', '.join(NAMES)}"


def test_a_wrong_number_of_one_feature_is_said_in_the_singular(demo_server: Server) -> None:
    _, error = refusal(ask(demo_server, '{"input":[6,7]}', "/models/linear/predict"))
    assert error == "input: expected 1 feature, got 2; in order: x"


VALUES = {
    "a string": ('"abc"', 'expected a number, got "abc"'),
    "a number as a string": ('"5.1"', 'expected a number, got "5.1"'),
    "an empty string": ('""', 'expected a number, got ""'),
    "null": ("null", "expected a number, got null"),
    "true": ("true", "got true"),
    "false": ("false", "got false"),
    "1e400": ("1e400", "expected a finite float64 number, got a number that is not finite"),
    "-1e400": ("-1e400", "expected a finite float64 number, got a number that is not finite"),
    "an integer of 400 digits": ("9" * 400, "expected a finite float64 number, got an integer of 1329 bits"),
    "an empty list": ("[]", "got a list"),
    "a list of one": ("[1]", "got a list"),
    "an object": ("{}", "got an object"),
    "a long string": ('"' + "x" * 1000 + '"', "xxx..."),
}


@pytest.mark.parametrize(("value", "message"), VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("form", ["bare row", "bare input", "batch", "large batch", "named row", "named batch"])
def test_a_value_that_is_no_number_is_named_by_its_place(
    demo_server: Server, form: str, value: str, message: str
) -> None:
    row = f"[5.1,3.5,{value},0.2]"
    by_name = json.dumps(NAMED | {NAMES[2]: "@"}).replace('"@"', value)
    body, where = {
        "bare row": (f'{{"features":{row}}}', "features[2]"),
        "bare input": (f'{{"input":{row}}}', "input[2]"),
        "batch": (features(ROW, row, ROW), "features[1][2]"),
        "large batch": (features(*[ROW] * 700, row), "features[700][2]"),
        "named row": (f'{{"features":{by_name}}}', "features.petal length (cm)"),
        "named batch": (features(json.dumps(NAMED), by_name), "features[1].petal length (cm)"),
    }[form]
    if form.startswith("bare") and value.startswith(("[", "{")):
        # Among bare numbers a list is a row, and then it is the numbers that are out of place.
        where, message = f"{where.partition('[')[0]}[0]", "expected a row (a list or an object), got 5.1"
    code, error = refusal(ask(demo_server, body))
    assert code in ("invalid_value", "invalid_shape")
    assert error.startswith(f"{where}: ")
    assert message in error
    assert len(error) < 200


@pytest.mark.parametrize("value", ["18446744073709551615", "18446744073709551616", "-9223372036854775809", "3e38"])
def test_huge_numbers_that_the_model_holds_are_numbers(demo_server: Server, value: str) -> None:
    assert ask(demo_server, f'{{"features":[5.1,3.5,{value},0.2]}}').status == 200


@pytest.mark.parametrize("value", ["9" * 300, "-1e39", "1e308"])
def test_huge_numbers_that_a_float32_graph_cannot_hold_are_refused(demo_server: Server, value: str) -> None:
    code, error = refusal(ask(demo_server, f'{{"features":[5.1,3.5,{value},0.2]}}'))
    assert (code, "computes in float32" in error) == ("rejected_by_estimator", True)
    # Whatever numpy warns of meanwhile, the log stays JSON.
    assert demo_server.log()


NAME_FAULTS = {
    "missing": ({NAMES[0]: 5.1}, "missing_feature", "missing sepal width (cm), petal length (cm), petal width (cm)"),
    "unknown": (NAMED | {"petal colour": 1}, "unknown_feature", 'unknown feature "petal colour"'),
    "misspelt": ({k.upper(): v for k, v in NAMED.items()}, "missing_feature", "missing sepal length (cm)"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "code", "message"), NAME_FAULTS.values(), ids=NAME_FAULTS)
@pytest.mark.parametrize("batch", [False, True], ids=["row", "batch"])
def test_names_must_be_the_signatures(
    demo_server: Server, batch: bool, row: dict[str, float], code: str, message: str
) -> None:
    body = json.dumps({"features": [NAMED, row] if batch else row})
    found, error = refusal(ask(demo_server, body))
    assert found == code
    assert error.startswith(f"features{'[1]' if batch else ''}: {message}")


DUPLICATES = {
    "a name in a row": json.dumps({"features": NAMED})[:-2] + ',"petal width (cm)":9}}',
    "a name in a row of many": features(json.dumps(NAMED), json.dumps(NAMED)[:-1] + ',"petal width (cm)":9}'),
    "an escaped name": json.dumps({"features": NAMED})[:-2] + ',"\\u0070etal width (cm)":9}}',
    "the field": f'{{"features":{ROW},"features":{ROW}}}',
    "the option": f'{{"features":{ROW},"probabilities":true,"probabilities":false}}',
    "a colon inside a name": f'{{"features":{ROW},":":1,":":1}}',
}


@pytest.mark.parametrize("body", DUPLICATES.values(), ids=DUPLICATES)
def test_a_name_that_stands_twice_is_refused(demo_server: Server, body: str) -> None:
    code, error = refusal(ask(demo_server, body))
    assert code == "duplicate_name"
    assert "stands twice" in error


def test_probabilities_of_a_model_without_them_are_refused(demo_server: Server) -> None:
    body = '{"features":[6],"probabilities":true}'
    code, error = refusal(ask(demo_server, body, "/models/linear/predict"))
    assert code == "unknown_output"
    assert error == "probabilities: this model has no probabilities"


@pytest.mark.parametrize("rows", [5001, 20_000])
def test_more_rows_than_allowed_are_413_and_say_the_limit(demo_server: Server, rows: int) -> None:
    for row in ("[1]", '{"x":1}'):
        code, error = refusal(ask(demo_server, features(*[row] * rows), "/models/linear/predict"), 413)
        assert code == "too_many_rows"
        assert error == f"features: expected at most 5000 rows, got {rows}"


def test_as_many_rows_as_allowed_are_answered(demo_server: Server) -> None:
    answer = ask(demo_server, features(*["[6]"] * 5000), "/models/linear/predict")
    assert answer.status == 200
    assert answer.json["predictions"] == pytest.approx([12.0] * 5000)


UNKNOWN = {
    "model": ("/models/rose/predict", "no model 'rose'; there is breast-cancer, iris, linear"),
    "version": ("/models/iris/versions/2/predict", "no version '2' of iris; there is 1"),
    "version of an unknown model": ("/models/rose/versions/1/predict", "no model 'rose'"),
    "none named of several": ("/predict", "several models are served (breast-cancer, iris, linear)"),
    "a path as a name": ("/models/..%2F..%2Fetc%2Fpasswd/predict", "no such path"),
    "dots as a name": ("/models/%2E%2E/predict", "no "),
    "a long name": (f"/models/{'x' * 3000}/predict", "no model"),
    "a name of no UTF-8": ("/models/%ff%fe/predict", "no model"),
}


@pytest.mark.parametrize(("path", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_models_and_versions_are_404_and_say_what_there_is(
    demo_server: Server, path: str, message: str
) -> None:
    code, error = refusal(ask(demo_server, features(ROW), path), 404)
    assert code == "not_found"
    assert message in error
    assert len(error) < 400


def test_an_unknown_model_is_told_before_a_bad_body(demo_server: Server) -> None:
    assert refusal(ask(demo_server, "not JSON", "/models/rose/predict"), 404)[0] == "not_found"


@pytest.fixture(scope="module")
def mixed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One model of a DataFrame: a category, a free text, an integer, a boolean, a number that may miss."""
    frame = pd.DataFrame(
        {
            "size": pd.Categorical(["S", "M", "L", "M"] * 10, categories=["S", "M", "L"]),
            "city": ["Vigo", "Palma", "Cádiz", "Vigo"] * 10,
            "rooms": [1, 2, 3, 4] * 10,
            "garden": [True, False, False, True] * 10,
            "area": [50.0, None, 80.0, 30.5] * 10,
        }
    )
    transform = make_column_transformer(
        (OneHotEncoder(), ["size", "city"]), (SimpleImputer(), ["area"]), remainder="passthrough"
    )
    estimator = make_pipeline(transform, LogisticRegression(max_iter=1000)).fit(frame, ["cheap", "dear"] * 20)
    models: Path = tmp_path_factory.mktemp("mixed-models")
    save(estimator, frame, name="homes", version="1", repository=models)
    with Server(models, tmp_path_factory.mktemp("mixed-server"), {"MUELLE_WORKERS": "1"}) as server:
        server.wait_ready()
        yield server


HOME = {"size": "S", "city": "Vigo", "rooms": 1, "garden": True, "area": 50.0}


def test_a_home_is_answered(mixed_server: Server) -> None:
    """Or the refusals below would prove nothing."""
    for row in (HOME, list(HOME.values()), HOME | {"area": None}, HOME | {"rooms": 2.0}, HOME | {"area": 50}):
        answer = ask(mixed_server, json.dumps({"features": row}), "/predict")
        assert answer.status == 200, answer.body
        assert answer.json["prediction"] in ("cheap", "dear")


HOMES = {
    "unseen category": ({"size": "XL"}, "unknown_category", 'features.size: expected one of "S", "M", "L", got "XL"'),
    "category in another case": ({"size": "s"}, "unknown_category", 'got "s"'),
    "category as a number": ({"size": 1}, "invalid_value", "features.size: expected a string, got 1"),
    "category null": ({"size": None}, "invalid_value", "features.size: expected a string, got null"),
    "unseen by the encoder": ({"city": "Lugo"}, "rejected_by_estimator", "unknown categories"),
    "text as a number": ({"city": 7}, "invalid_value", "features.city: expected a string, got 7"),
    "text as true": ({"city": True}, "invalid_value", "features.city: expected a string, got true"),
    "integer with a fraction": (
        {"rooms": 1.5},
        "invalid_value",
        "features.rooms: expected an integer of 64 bits, got 1.5",
    ),
    "integer as a string": ({"rooms": "1"}, "invalid_value", 'features.rooms: expected an integer, got "1"'),
    "integer as true": ({"rooms": True}, "invalid_value", "features.rooms: expected an integer, got true"),
    "integer of 65 bits": ({"rooms": 2**64}, "invalid_value", "features.rooms: expected an integer of 64 bits"),
    "integer of 1,000 bits": ({"rooms": 2**1000}, "invalid_value", "features.rooms: expected an integer of 64 bits"),
    "integer null": ({"rooms": None}, "invalid_value", "features.rooms: expected an integer, got null"),
    "boolean as 1": ({"garden": 1}, "invalid_value", "features.garden: expected true or false, got 1"),
    "boolean as a string": ({"garden": "true"}, "invalid_value", 'features.garden: expected true or false, got "true"'),
    "number as a string": ({"area": "50"}, "invalid_value", 'features.area: expected a number, got "50"'),
    "number as a list": ({"area": [50]}, "invalid_value", "features.area: expected a number, got a list"),
    "unknown name": ({"Area": 50}, "unknown_feature", 'features: unknown feature "Area"'),
}


@pytest.mark.parametrize(("change", "code", "message"), HOMES.values(), ids=HOMES)
def test_each_column_takes_only_its_own_kind(
    mixed_server: Server, change: dict[str, Any], code: str, message: str
) -> None:
    found, error = refusal(ask(mixed_server, json.dumps({"features": HOME | change}), "/predict"))
    assert found == code
    assert message in error
    rows = {"input": [HOME, HOME | change]}
    found, error = refusal(ask(mixed_server, json.dumps(rows), "/predict"))
    assert found == code
    if message.startswith("features"):
        assert error.startswith("input[1]")


@pytest.mark.parametrize("value", ["1e400", "-1e400", "9" * 400])
def test_a_number_that_may_be_missing_must_still_be_finite(mixed_server: Server, value: str) -> None:
    body = json.dumps({"features": HOME | {"area": "@"}}).replace('"@"', value)
    code, error = refusal(ask(mixed_server, body, "/predict"))
    assert code == "invalid_value"
    assert error.startswith("features.area: expected a finite float64 number")


def test_the_answers_of_a_refused_request_stay_out_of_the_log(mixed_server: Server) -> None:
    """Also the log is all JSON, whatever the estimator's library printed."""
    secret = "a-value-that-nobody-else-sends"
    refusal(ask(mixed_server, json.dumps({"features": HOME | {"rooms": secret}}), "/predict"))
    assert all(secret not in json.dumps(line) for line in mixed_server.log())
