"""The schemas that are made from signatures, and which models are described; tests/contract asks a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from lifecycle import factor_bundle
from prometheus_client import CollectorRegistry
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from muelle.bundle import save
from muelle.bundle.signature import Feature, Output, Signature
from service.app import create_app
from service.metrics import Metrics
from service.models import Models
from service.openapi import feature_schema, openapi_document, request_schema, response_schema
from service.settings import Settings

NUMBERS = (Feature("a", "float64"), Feature("b", "float64"))
CLASSES = (
    Output("predict", "string", (-1,), ("no", "yes")),
    Output("predict_proba", "float64", (-1, 2), ("no", "yes")),
)


def signature(
    inputs: tuple[Feature, ...] = NUMBERS, outputs: tuple[Output, ...] = (Output("predict", "float64", (-1,)),)
) -> Signature:
    return Signature(layout="matrix", inputs=inputs, outputs=outputs)


def allows(schema: dict[str, Any], document: Any) -> bool:
    return bool(Draft202012Validator(schema).is_valid(document))


@pytest.mark.parametrize(
    ("feature", "good", "bad"),
    [
        (Feature("x", "float64"), [0, -1.5, 1.7e308], [None, "1", True, [], 10**400]),
        (Feature("x", "float64", nullable=True), [0.5, None], ["NaN"]),
        (Feature("x", "float32"), [3.4e38], [3.5e38, -3.5e38]),
        (Feature("x", "int64"), [2**63 - 1, -(2**63), 6.0], [2**63, 6.5, "6"]),
        (Feature("x", "bool"), [True, False], [0, 1, "true", None]),
        (Feature("x", "string"), ["", "ä"], [1, None]),
        (Feature("x", "string", nullable=True), ["", None], [1]),
        (Feature("x", "string", categories=("low", "high")), ["low", "high"], ["", "Low", None]),
        (Feature("x", "string", nullable=True, categories=("low",)), ["low", None], ["high"]),
    ],
)
def test_a_cell_may_be_what_its_feature_takes(feature: Feature, good: list[Any], bad: list[Any]) -> None:
    schema = feature_schema(feature)
    assert [value for value in good if not allows(schema, value)] == []
    assert [value for value in bad if allows(schema, value)] == []


def test_a_model_that_computes_in_float32_takes_no_more_than_that() -> None:
    assert allows(feature_schema(NUMBERS[0]), 1e39)
    assert not allows(feature_schema(NUMBERS[0], float32=True), 1e39)


@pytest.mark.parametrize("field", ["features", "input"])
@pytest.mark.parametrize(
    ("rows", "fine"),
    [
        ([1, 2], True),
        ([[1, 2]], True),
        ([[1, 2]] * 3, True),
        ([[1, 2]] * 4, False),
        ({"a": 1, "b": 2}, True),
        ([{"b": 2, "a": 1}], True),
        ([], False),
        ([[]], False),
        ([1], False),
        ([1, 2, 3], False),
        ([[1, 2], [1]], False),
        ([[1, 2], {"a": 1, "b": 2}], False),
        ({"a": 1}, False),
        ({"a": 1, "b": 2, "c": 3}, False),
        ("1,2", False),
        (None, False),
    ],
)
def test_rows_have_the_signatures_form(rows: Any, fine: bool, field: str) -> None:
    assert allows(request_schema(signature(), max_rows=3), {field: rows}) == fine


def test_a_request_has_one_of_two_fields_and_no_others() -> None:
    schema = request_schema(signature(), max_rows=3)
    assert not allows(schema, {})
    assert not allows(schema, {"features": [1, 2], "input": [1, 2]})
    assert not allows(schema, {"features": [1, 2], "rows": 1})
    assert not allows(schema, {"features": [1, 2], "probabilities": True})
    with_classes = request_schema(signature(outputs=CLASSES), max_rows=3)
    assert allows(with_classes, {"features": [1, 2], "probabilities": True})
    assert not allows(with_classes, {"features": [1, 2], "probabilities": 1})


def test_columns_of_different_kinds_keep_their_order() -> None:
    mixed = (Feature("n", "int64"), Feature("s", "string"))
    schema = request_schema(signature(mixed), max_rows=3)
    assert allows(schema, {"features": [1, "a"]})
    assert not allows(schema, {"features": ["a", 1]})
    assert not allows(schema, {"features": [1, "a", 1]})


@pytest.mark.parametrize(
    ("outputs", "good", "bad"),
    [
        ((Output("predict", "float64", (-1,)),), [1.5, None], ["1", True]),
        ((Output("predict", "int64", (-1,)),), [1], [1.5]),
        ((Output("predict", "float64", (-1, 2)),), [[1.0, 2.0]], [1.0, [1.0]]),
        (CLASSES, ["no", "yes"], ["maybe", 1]),
    ],
)
def test_answers_have_the_outputs_form(outputs: tuple[Output, ...], good: list[Any], bad: list[Any]) -> None:
    schema = response_schema(signature(outputs=outputs))
    for values, fine in ((good, True), (bad, False)):
        for value in values:
            assert allows(schema, {"prediction": value}) == fine
            assert allows(schema, {"predictions": [value]}) == fine
            assert allows(schema, {"output": [value]}) == fine
            assert not allows(schema, {"prediction": value, "output": [value]})


def test_probabilities_come_with_their_classes() -> None:
    schema = response_schema(signature(outputs=CLASSES))
    assert allows(schema, {"prediction": "no", "probabilities": [0.9, 0.1], "classes": ["no", "yes"]})
    assert allows(schema, {"predictions": ["no"], "probabilities": [[0.9, 0.1]], "classes": ["no", "yes"]})
    assert not allows(schema, {"prediction": "no", "probabilities": [1.9, 0.1]})
    assert not allows(schema, {"prediction": "no", "classes": ["no", "perhaps"]})


def document(folder: Path, **settings: Any) -> dict[str, Any]:
    """Return the document of an application that has loaded a folder."""
    chosen = Settings(models=(folder,), allowed_modules=("operator_models",), access_log=False, **settings)
    metrics = Metrics(CollectorRegistry())
    models = Models(chosen, metrics)
    models.load()
    return openapi_document(create_app(chosen, models, metrics).extensions["muelle"])


def test_only_models_that_are_ready_are_described(tmp_path: Path) -> None:
    for version in ("1", "2"):
        factor_bundle(tmp_path, name="a", version=version)
    (factor_bundle(tmp_path, name="b") / "golden.json").unlink()
    posts = {path for path, methods in document(tmp_path)["paths"].items() if "post" in methods}
    assert posts == {
        "/feedback",
        "/models/a/predict",
        "/models/a/versions/1/predict",
        "/models/a/versions/2/predict",
        "/v2/models/a/infer",
        "/v2/models/a/versions/1/infer",
        "/v2/models/a/versions/2/infer",
    }
    assert "/predict" in document(tmp_path, default_model="a")["paths"]


def test_names_and_versions_that_look_alike_when_joined_have_a_schema_each(tmp_path: Path) -> None:
    factor_bundle(tmp_path, name="a-1", version="2")
    factor_bundle(tmp_path, name="a", version="1-2")
    found = document(tmp_path)
    references = {
        path: methods["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for path, methods in found["paths"].items()
        if path.endswith("/predict") and "/versions/" in path
    }
    assert len(set(references.values())) == 2
    assert set(references.values()) < set(found["components"]["schemas"])


def test_an_example_shows_no_single_persons_value(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": random.integers(18, 90, 60).astype(float),
            "city": ["Vigo"] * 30 + ["Lugo"] * 30,
            "name": [f"person {i}" for i in range(60)],
        }
    )
    columns = make_column_transformer(
        (SimpleImputer(), ["age"]), (OneHotEncoder(handle_unknown="ignore"), ["city", "name"])
    )
    fitted = make_pipeline(columns, LogisticRegression()).fit(table, table["city"] == "Vigo")
    save(fitted, table, name="people", repository=tmp_path, onnx=False)
    operation = document(tmp_path)["paths"]["/predict"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    age, city, name = examples["row"]["value"]["features"]
    assert age == table["age"].median()
    assert city in {"Vigo", "Lugo"}
    assert name == "text"
    assert examples["named"]["value"]["features"] == {"age": age, "city": city, "name": name}
    assert "person" not in str(operation)
