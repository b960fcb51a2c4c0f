"""`Predictor` in an application: rows of any kind that numpy, pandas and Python have, and the errors of loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from muelle.bundle import save
from muelle.errors import BundleError, EngineError, InputError, IntegrityError, LibrarySkewError
from muelle.inference import Predictor

X = np.random.default_rng(3).normal(size=(40, 3))
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
TABLE = pd.DataFrame(
    {
        "size": pd.Categorical(["S", "M", "L", "M"] * 10, categories=["S", "M", "L"]),
        "city": ["Vigo", "Palma", None, "Vigo"] * 10,
        "rooms": [1, 2, 3, 4] * 10,
        "garden": [True, False, False, True] * 10,
        "area": [50.0, None, 80.0, 30.5] * 10,
    }
)
TEXTS = ["good day", "bad day", "good night", "bad night"] * 5


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Fitted estimators and their bundles."""
    folder = tmp_path_factory.mktemp("bundles")
    labels = np.where(X.sum(axis=1) > 0, "yes", "no")
    transform = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["size", "city"]),
        (SimpleImputer(), ["area"]),
        remainder="passthrough",
    )
    estimators = {
        "matrix": (LogisticRegression().fit(X, labels), X),
        "named": (LogisticRegression().fit(FRAME, labels), FRAME),
        "single": (LinearRegression().fit(X.astype(np.float32), X[:, 0]), X.astype(np.float32)),
        "gaps": (make_pipeline(SimpleImputer(), LinearRegression()).fit(X, X[:, 0]), np.where(X > 1, np.nan, X)),
        "table": (make_pipeline(transform, LogisticRegression(max_iter=1000)).fit(TABLE, [0, 1] * 20), TABLE),
        "text": (make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, ["+", "-"] * 10), TEXTS),
    }
    paths = {
        name: save(estimator, rows, name=name, version="1", repository=folder, onnx=name == "matrix")
        for name, (estimator, rows) in estimators.items()
    }
    return SimpleNamespace(paths=paths, estimators={name: item[0] for name, item in estimators.items()})


@pytest.fixture(scope="module")
def predictors(bundles: SimpleNamespace) -> dict[str, Predictor]:
    return {name: Predictor.load(path) for name, path in bundles.paths.items()}


def refused(predictor: Predictor, rows: Any) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        predictor.predict(rows)
    return caught.value.code, str(caught.value)


ARRAY_LIKES = {
    "array": X,
    "array of integers": X.round().astype(int),
    "array in Fortran's order": np.asfortranarray(X),
    "array of strides": np.repeat(X, 2, axis=0)[::2],
    "array of objects": X.astype(object),
    "list of lists": X.tolist(),
    "list of tuples": [tuple(row) for row in X.tolist()],
    "list of arrays": list(X),
    "list of lists of numpy's numbers": [list(row) for row in X],
    "tuple of lists": tuple(X.tolist()),
    "generator of lists": None,
    "frame": pd.DataFrame(X, columns=["x0", "x1", "x2"]),
    "frame in another order": pd.DataFrame(X, columns=["x0", "x1", "x2"])[["x2", "x0", "x1"]],
    "dicts": [dict(zip(("x0", "x1", "x2"), row, strict=True)) for row in X.tolist()],
    "dicts of numpy's numbers": [dict(zip(("x2", "x1", "x0"), row[::-1], strict=True)) for row in X],
}


@pytest.mark.parametrize("kind", ARRAY_LIKES)
def test_rows_of_any_kind_are_answered_as_the_estimator_does(
    predictors: dict[str, Predictor], bundles: SimpleNamespace, kind: str
) -> None:
    rows = (row for row in X.tolist()) if kind == "generator of lists" else ARRAY_LIKES[kind]
    asked = X.round() if kind == "array of integers" else X
    assert predictors["matrix"].predict(rows).tolist() == bundles.estimators["matrix"].predict(asked).tolist()


def test_probabilities_are_the_estimators(predictors: dict[str, Predictor], bundles: SimpleNamespace) -> None:
    wanted = bundles.estimators["matrix"].predict_proba(X)
    assert predictors["matrix"].engine == "onnx"
    assert predictors["matrix"].predict_proba(X) == pytest.approx(wanted, abs=1e-9)
    assert predictors["matrix"].signature.output("predict_proba").classes == ("no", "yes")
    with pytest.raises(InputError, match="this model has no probabilities") as caught:
        predictors["single"].predict_proba(X)
    assert caught.value.code == "unknown_output"


def test_a_frame_is_matched_by_name_not_by_place(predictors: dict[str, Predictor], bundles: SimpleNamespace) -> None:
    turned = FRAME[["c", "a", "b"]].set_index(np.arange(100, 140))
    assert predictors["named"].predict(turned).tolist() == bundles.estimators["named"].predict(FRAME).tolist()


FRAMES = {
    "a column too few": (FRAME[["a", "b"]], "missing_feature", "rows: missing c"),
    "a column too many": (FRAME.assign(d=1), "unknown_feature", "rows: unknown feature d"),
    "a column twice": (FRAME[["a", "b", "c", "a"]], "duplicate_name", "rows: the column a stands there twice"),
    "columns of other names": (FRAME.rename(columns=str.upper), "missing_feature", "rows: missing a, b, c"),
    "no rows": (FRAME.iloc[:0], "empty_batch", "rows: expected at least one row, got none"),
    "a missing value": (FRAME.assign(b=None), "invalid_value", "rows[0].b: expected a number, got null"),
    "NaN": (FRAME.assign(b=np.nan), "invalid_value", "rows[0].b: expected a number, got null"),
    "infinity": (FRAME.assign(b=np.inf), "invalid_value", "rows[0].b: expected a finite float64 number"),
    "strings": (FRAME.assign(b="1"), "invalid_value", 'rows[0].b: expected a number, got "1"'),
    "booleans": (FRAME.assign(b=True), "invalid_value", "rows[0].b: expected a number, got true"),
    "dates": (FRAME.assign(b=pd.Timestamp("2024-01-01")), "invalid_value", "rows[0].b: expected a number, got "),
}


@pytest.mark.parametrize(("frame", "code", "message"), FRAMES.values(), ids=FRAMES)
def test_a_frame_that_does_not_fit_is_refused(
    predictors: dict[str, Predictor], frame: pd.DataFrame, code: str, message: str
) -> None:
    found, error = refused(predictors["named"], frame)
    assert found == code
    assert error.startswith(message)


ARRAYS = {
    "a column too few": (X[:, :2], "wrong_feature_count", "rows: expected 3 features, got 2; in order: x0, x1, x2"),
    "one dimension": (X[0], "invalid_shape", "rows: expected the shape (n_samples, 3), got (3,)"),
    "three dimensions": (X[None], "invalid_shape", "rows: expected the shape (n_samples, 3), got (1, 40, 3)"),
    "no rows": (X[:0], "empty_batch", "rows: expected at least one row, got an empty list"),
    "NaN": (np.where(X[2, 1] == X, np.nan, X), "invalid_value", "rows[2][1]: expected a number, got NaN"),
    "infinity": (np.where(X[2, 1] == X, -np.inf, X), "invalid_value", "rows[2][1]: expected a number, got a number"),
    "booleans": (X > 0, "invalid_value", "rows[0][0]: expected a number, got "),
    "strings": (X.astype(str), "invalid_value", 'rows[0][0]: expected a number, got "'),
    "complex numbers": (X.astype(complex), "invalid_value", "rows[0][0]: expected a number, got "),
    "a flat list": ([1.0, 2.0, 3.0], "invalid_shape", "rows[0]: expected a row (a list or an object), got 1.0"),
    "ragged lists": ([[1.0, 2.0, 3.0], [1.0]], "wrong_feature_count", "rows[1]: expected 3 features, got 1"),
    "dicts of another name": ([{"x0": 1, "x1": 2, "y": 3}], "missing_feature", "rows[0]: missing x2"),
    "an empty list": ([], "empty_batch", "rows: expected at least one row"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "code", "message"), ARRAYS.values(), ids=ARRAYS)
def test_an_array_that_does_not_fit_is_refused(
    predictors: dict[str, Predictor], rows: Any, code: str, message: str
) -> None:
    found, error = refused(predictors["matrix"], rows)
    assert found == code
    assert error.startswith(message)


def test_float32_takes_what_it_can_hold(predictors: dict[str, Predictor], bundles: SimpleNamespace) -> None:
    wanted = bundles.estimators["single"].predict(X.astype(np.float32))
    for rows in (X, X.astype(np.float32), X.tolist()):
        assert predictors["single"].predict(rows) == pytest.approx(wanted, rel=1e-6)
    for rows in (np.full((1, 3), 1e39), [[0.0, 1e39, 0.0]]):
        assert refused(predictors["single"], rows)[0] == "invalid_value"


def test_missing_numbers_are_taken_where_the_sample_had_some(
    predictors: dict[str, Predictor], bundles: SimpleNamespace
) -> None:
    gaps = np.where(X > 0.5, np.nan, X)
    assert {feature.nullable for feature in predictors["gaps"].signature.inputs} == {True}
    wanted = bundles.estimators["gaps"].predict(gaps)
    with_none = [[None if np.isnan(value) else value for value in row] for row in gaps.tolist()]
    for rows in (gaps, gaps.tolist(), with_none, pd.DataFrame(gaps, columns=["x0", "x1", "x2"])):
        assert predictors["gaps"].predict(rows) == pytest.approx(wanted)
    assert refused(predictors["gaps"], np.array([[1.0, np.nan, np.inf]]))[1].startswith("rows[0][2]")


def rows_of_table() -> list[dict[str, Any]]:
    return [
        {name: None if value is None or value != value else value for name, value in row.items()}
        for row in TABLE.to_dict("records")
    ]


def test_a_table_is_answered_in_every_form(predictors: dict[str, Predictor], bundles: SimpleNamespace) -> None:
    wanted = bundles.estimators["table"].predict(TABLE).tolist()
    predictor = predictors["table"]
    rows = rows_of_table()
    assert predictor.signature.layout == "frame"
    forms = {
        "frame": TABLE,
        "frame of objects": TABLE.astype(object),
        "frame of plain strings": TABLE.astype({"size": str}),
        "frame of small integers": TABLE.astype({"rooms": "int8"}),
        "frame of pandas' own integers": TABLE.astype({"rooms": "Int64"}),
        "frame of whole floats": TABLE.astype({"rooms": float}),
        "dicts": rows,
        "lists": [list(row.values()) for row in rows],
        "array of objects": TABLE.astype(object).to_numpy(),
    }
    assert {name: predictor.predict(form).tolist() for name, form in forms.items()} == dict.fromkeys(forms, wanted)


def test_one_row_is_answered_as_it_is_among_others(predictors: dict[str, Predictor]) -> None:
    """Also where all of a column is missing, and its kind can't be seen."""
    predictor, rows = predictors["table"], rows_of_table()
    together = predictor.predict_proba(rows)
    alone = np.concatenate([predictor.predict_proba([row]) for row in rows[:8]])
    assert alone == pytest.approx(together[:8], abs=1e-12)


INTEGER = "rows[0].rooms: expected an integer of 64 bits, got 6.5"
TABLES = {
    "unseen category": ({"size": "XL"}, "unknown_category", 'rows[0].size: expected one of "S", "M", "L", got "XL"'),
    "missing category": ({"size": None}, "invalid_value", "rows[0].size: expected a string, got null"),
    "number as text": ({"city": 3}, "invalid_value", "rows[0].city: expected a string, got 3"),
    "integer with a fraction": ({"rooms": 6.5}, "invalid_value", INTEGER),
    "missing integer": ({"rooms": None}, "invalid_value", "rows[0].rooms: expected an integer, got null"),
    "boolean as 1": ({"garden": 1}, "invalid_value", "rows[0].garden: expected true or false, got 1"),
    "number as text in numbers": ({"area": "50"}, "invalid_value", 'rows[0].area: expected a number, got "50"'),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code", "message"), TABLES.values(), ids=TABLES)
def test_each_column_of_a_table_takes_its_own_kind(
    predictors: dict[str, Predictor], change: dict[str, Any], code: str, message: str
) -> None:
    row = {"size": "S", "city": "Vigo", "rooms": 1, "garden": True, "area": 50.0}
    assert predictors["table"].predict([row | {"rooms": 6.0}]).shape == (1,)
    for rows in ([row | change], pd.DataFrame({name: [value] for name, value in (row | change).items()}, dtype=object)):
        assert refused(predictors["table"], rows) == (code, message)


TEXT_FORMS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "array": np.array(TEXTS),
    "array of objects": np.array(TEXTS, dtype=object),
    "series": pd.Series(TEXTS),
    "lists": [[text] for text in TEXTS],
    "dicts": [{"text": text} for text in TEXTS],
    "frame": pd.DataFrame({"text": TEXTS}),
}


@pytest.mark.parametrize("rows", TEXT_FORMS.values(), ids=TEXT_FORMS)
def test_texts_of_any_kind_are_answered(predictors: dict[str, Predictor], bundles: SimpleNamespace, rows: Any) -> None:
    assert predictors["text"].predict(rows).tolist() == bundles.estimators["text"].predict(TEXTS).tolist()


def test_a_text_that_is_none_is_refused(predictors: dict[str, Predictor]) -> None:
    assert refused(predictors["text"], ["good", 7]) == (
        "invalid_shape",
        "rows[1]: expected a row (a list or an object), got 7",
    )
    assert refused(predictors["text"], [["good"], [None]])[1] == "rows[1][0]: expected a string, got null"


def test_the_callers_rows_are_left_as_they_are(predictors: dict[str, Predictor]) -> None:
    rows, frame = X.copy(), TABLE.copy()
    predictors["matrix"].predict(rows)
    predictors["table"].predict(frame)
    assert (rows == X).all()
    pd.testing.assert_frame_equal(frame, TABLE)


def test_engines_are_chosen_by_the_bundle_or_by_name(bundles: SimpleNamespace) -> None:
    path = bundles.paths["matrix"]
    assert Predictor.load(path).engine == "onnx"
    assert Predictor.load(str(path), engine="joblib").engine == "joblib"
    with pytest.raises(EngineError, match="the engine skops is not in the bundle, which has onnx, joblib"):
        Predictor.load(path, engine="skops")
    with pytest.raises(EngineError, match="the engine onnx is not in the bundle, which has joblib"):
        Predictor.load(bundles.paths["table"], engine="onnx")


def test_a_predictor_says_what_it_is(bundles: SimpleNamespace) -> None:
    predictor = Predictor.load(bundles.paths["matrix"])
    assert (predictor.manifest.name, predictor.manifest.version) == ("matrix", "1")
    assert predictor.digest.startswith("sha256:")
    assert predictor.warnings == ()
    assert predictor.load_seconds > 0
    assert predictor.profile.rows == 40


def change_manifest(path: Path, key: str, value: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest[key] = value
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_loading_what_cannot_be_trusted_fails(bundles: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        Predictor.load(tmp_path / "nothing")
    path = tmp_path / "damaged"
    shutil.copytree(bundles.paths["table"], path)
    libraries = json.loads((path / "manifest.json").read_text())["libraries"]
    change_manifest(path, "libraries", libraries | {"scikit-learn": "0.24.2"})
    with pytest.raises(LibrarySkewError, match=r"made with scikit-learn 0\.24\.2"):
        Predictor.load(path)
    major, minor, *_ = libraries["scikit-learn"].split(".")
    change_manifest(path, "libraries", libraries | {"scikit-learn": f"{major}.{minor}.987"})
    (warning,) = Predictor.load(path).warnings
    assert "only the patch release differs" in warning
    (path / "model.joblib").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"model\.joblib"):
        Predictor.load(path)
