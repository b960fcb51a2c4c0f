"""Whatever scikit-learn calls an estimator with ``predict``: what is served equals what the estimator itself says.

Every kind goes all the way, through a bundle and a real server, and is asked by list rows and by named rows, one and
many, for probabilities, and by the Open Inference Protocol. Labels must be equal, numbers within a millionth.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier
from support import Server

from muelle.bundle import save

ASKED = 20
DATATYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "string": "BYTES"}
GENERATOR = np.random.default_rng(7)
#: 120 rows of four numbers, and what can be learned of them.
X = GENERATOR.normal(size=(120, 4))
SIGN = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
THIRD = np.digitize(X[:, 0] - X[:, 3], [-0.7, 0.7])
WORDS = np.array(["no", "perhaps", "yes, surely"])[THIRD]
VALUE = 3.0 * X[:, 0] - X[:, 1] + 100.0
GAPS = np.where(GENERATOR.random(X.shape) < 0.15, np.nan, X)
NUMBERS = pd.DataFrame(X, columns=["length", "width (cm)", "größe", "x 3"])
TEXTS = [
    f"{a} {b} {c}" for a in ("good", "bad", "so so") for b in ("day", "night", "Ä🙂") for c in ("", "here", "\"'\\\n")
] * 3
TABLE = pd.DataFrame(
    {
        "city": GENERATOR.choice(["Vigo", "Palma", "Cádiz"], 120),
        "grade": pd.Categorical(GENERATOR.choice(["low", "high"], 120), categories=["low", "middle", "high"]),
        "rooms": GENERATOR.integers(1, 6, 120),
        "garden": GENERATOR.random(120) < 0.5,
        "area": np.where(GENERATOR.random(120) < 0.2, np.nan, GENERATOR.normal(80, 20, 120)),
        "floor": pd.array(GENERATOR.choice([0, 1, 2, None], 120), dtype="Int64"),
    }
)
GAPPY_TABLE = TABLE.assign(city=TABLE["city"].where(GENERATOR.random(120) < 0.8, None))[["city", "area", "rooms"]]
OBJECTS = np.array(
    [[str(city), int(rooms)] for city, rooms in zip(TABLE["city"], TABLE["rooms"], strict=True)], dtype=object
)
CODES = pd.DataFrame({"a": pd.Categorical(TABLE["rooms"] * 10), "b": pd.Categorical(TABLE["garden"]), "c": X[:, 0]})


def table_pipeline(final: Any) -> Any:
    transform = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city", "grade"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), ["area", "floor"]),
        ("passthrough", ["rooms", "garden"]),
    )
    return make_pipeline(transform, final)


def gappy_pipeline(final: Any) -> Any:
    cities = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    return make_pipeline(make_column_transformer((cities, ["city"]), (SimpleImputer(), ["area", "rooms"])), final)


#: Estimator not yet fitted, rows, target; the target is None for those that learn without.
KINDS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "labels-int": lambda: (LogisticRegression(), X, SIGN),
    "labels-int-not-from-0": lambda: (DecisionTreeClassifier(max_depth=4), X, THIRD * 7 - 5),
    "labels-string": lambda: (make_pipeline(StandardScaler(), LogisticRegression()), X, WORDS),
    "labels-bool": lambda: (LogisticRegression(), X, SIGN.astype(bool)),
    "labels-float": lambda: (LogisticRegression(), X, SIGN.astype(float)),
    "labels-of-objects": lambda: (GaussianNB(), X, WORDS.astype(object)),
    "one-class-only": lambda: (DummyClassifier(), X, np.ones(120, dtype=int)),
    "no-probabilities": lambda: (SGDClassifier(random_state=0), X, WORDS),
    "svc": lambda: (SVC(), X, THIRD),
    "knn": lambda: (KNeighborsClassifier(), X, WORDS),
    "mlp": lambda: (MLPClassifier((8,), max_iter=60, solver="lbfgs", random_state=0), X, SIGN),
    "forest": lambda: (RandomForestClassifier(20, random_state=0), X, WORDS),
    "voting": lambda: (VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression())], voting="soft"), X, SIGN),
    "grid-search": lambda: (GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3), X, WORDS),
    "numeric-frame": lambda: (LogisticRegression(), NUMBERS, WORDS),
    "numeric-frame-of-integers": lambda: (LogisticRegression(), (NUMBERS * 10).astype(int), SIGN),
    "regressor": lambda: (LinearRegression(), X, VALUE),
    "regressor-forest": lambda: (RandomForestRegressor(20, random_state=0), X, VALUE),
    "regressor-elastic": lambda: (make_pipeline(StandardScaler(), ElasticNet(0.01)), NUMBERS, VALUE),
    "regressor-knn": lambda: (KNeighborsRegressor(), X, VALUE),
    "regressor-of-logarithms": lambda: (
        TransformedTargetRegressor(LinearRegression(), func=np.log, inverse_func=np.exp), X, VALUE,
    ),
    "regressor-of-integers": lambda: (DecisionTreeClassifier(max_depth=3), X.round().astype(int), SIGN),
    "regressor-multi-output": lambda: (LinearRegression(), X, np.column_stack([VALUE, X[:, 2]])),
    "regressor-of-one-column": lambda: (LinearRegression(), X, VALUE.reshape(-1, 1)),
    "classifier-multi-output": lambda: (MultiOutputClassifier(LogisticRegression()), X, np.column_stack([SIGN, THIRD])),
    "classifier-multi-output-words": lambda: (
        RandomForestClassifier(10, random_state=0), X, np.column_stack([WORDS, WORDS[::-1]]),
    ),
    "outliers-isolation": lambda: (IsolationForest(n_estimators=20, random_state=0), X, None),
    "outliers-svm": lambda: (OneClassSVM(), X, None),
    "outliers-neighbours": lambda: (LocalOutlierFactor(novelty=True), X, None),
    "clusters": lambda: (KMeans(3, n_init=2, random_state=0), X, None),
    "mixture": lambda: (GaussianMixture(3, random_state=0), X, None),
    "text": lambda: (make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, [t.split()[0] for t in TEXTS]),
    "table": lambda: (table_pipeline(LogisticRegression()), TABLE, WORDS),
    "table-regressor": lambda: (table_pipeline(LinearRegression()), TABLE, VALUE),
    "table-with-missing-text": lambda: (gappy_pipeline(LogisticRegression()), GAPPY_TABLE, SIGN),
    "table-of-strings": lambda: (make_pipeline(OneHotEncoder(), LogisticRegression()), TABLE[["city", "grade"]], SIGN),
    "boosting-with-gaps": lambda: (HistGradientBoostingClassifier(max_iter=20), GAPS, WORDS),
    "boosting-frame-with-gaps": lambda: (
        HistGradientBoostingRegressor(max_iter=20), pd.DataFrame(GAPS, columns=NUMBERS.columns), VALUE,
    ),
    "boosting-by-categories": lambda: (
        HistGradientBoostingClassifier(max_iter=20, categorical_features="from_dtype"),
        TABLE[["grade", "rooms", "area"]], SIGN,
    ),
    "boosting-by-number-categories": lambda: (
        HistGradientBoostingRegressor(max_iter=20, categorical_features="from_dtype"), CODES[["a", "c"]], VALUE,
    ),
    "objects": lambda: (make_pipeline(OneHotEncoder(), LogisticRegression()), OBJECTS, SIGN),
    "objects-of-strings": lambda: (make_pipeline(OrdinalEncoder(), DecisionTreeClassifier()), OBJECTS[:, :1], SIGN),
    "float32": lambda: (LogisticRegression(), X.astype(np.float32), WORDS),
    "float32-forest": lambda: (RandomForestRegressor(10, random_state=0), X.astype(np.float32), VALUE),
    "one-column": lambda: (LinearRegression(), X[:, :1], VALUE),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A fitted estimator, and the rows it was fitted on."""

    estimator: Any
    rows: Any


def first(rows: Any, count: int = ASKED) -> Any:
    return rows.iloc[:count] if isinstance(rows, pd.DataFrame) else rows[:count]


def cell(value: Any) -> Any:
    """One value as JSON has it."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


def cells(rows: Any) -> list[list[Any]]:
    """Rows as lists of JSON values."""
    if isinstance(rows, list):
        return [[text] for text in rows]
    if isinstance(rows, pd.DataFrame):
        rows = list(zip(*(rows.iloc[:, i].tolist() for i in range(rows.shape[1])), strict=True))
    return [[cell(value) for value in row] for row in rows]


@pytest.fixture(scope="module")
def kinds() -> dict[str, Kind]:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in KINDS.items():
            estimator, rows, target = make()
            found[name] = Kind(estimator.fit(rows) if target is None else estimator.fit(rows, target), rows)
    return found


@pytest.fixture(scope="module", params=["auto", "joblib"])
def server(request: pytest.FixtureRequest, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of all kinds, by the engine it takes by itself, then by the estimators themselves."""
    folder = tmp_path_factory.mktemp(f"kinds-{request.param}")
    with Server(saved, folder, {"MUELLE_WORKERS": "1", "MUELLE_ENGINE": request.param}) as running:
        running.wait_ready()
        yield running
    # Libraries print warnings where they like: the log stays JSON.
    assert running.log()


@pytest.fixture(scope="module")
def saved(kinds: dict[str, Kind], tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("kinds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kind in kinds.items():
            save(kind.estimator, kind.rows, name=name, version="1", repository=repository)
    return repository


def expected(kind: Kind, method: str = "predict") -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            cell(row) if np.ndim(row) == 0 else [cell(v) for v in row]
            for row in getattr(kind.estimator, method)(first(kind.rows))
        ]


def assert_same(found: list[Any], wanted: list[Any]) -> None:
    """Labels equal and of the same type; numbers within a millionth."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        if isinstance(other, list):
            assert_same(one, other)
        elif isinstance(other, float):
            assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
        else:
            assert (type(one), one) == (type(other), other)


def predict(server: Server, name: str, document: Any) -> Any:
    answer = server.post(f"/models/{name}/predict", document)
    assert answer.status == 200, answer.body
    return answer.json


@pytest.mark.parametrize("name", KINDS)
def test_list_rows_are_answered_as_the_estimator_does(server: Server, kinds: dict[str, Kind], name: str) -> None:
    rows, wanted = cells(first(kinds[name].rows)), expected(kinds[name])
    assert_same(predict(server, name, {"features": rows})["predictions"], wanted)
    assert_same(predict(server, name, {"input": rows})["output"], wanted)
    for row, answer in zip(rows[:5], wanted, strict=False):
        assert_same([predict(server, name, {"features": row})["prediction"]], [answer])


@pytest.mark.parametrize("name", KINDS)
def test_named_rows_are_answered_as_the_estimator_does(server: Server, kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    described = {model["name"]: model for model in server.get("/").json["models"]}[name]
    names = described["features"]
    if isinstance(kind.rows, pd.DataFrame):
        assert names == list(kind.rows.columns)
    # The other way round: by name, the order is nobody's concern.
    rows = [dict(reversed(list(zip(names, row, strict=True)))) for row in cells(first(kind.rows))]
    wanted = expected(kind)
    assert_same(predict(server, name, {"features": rows})["predictions"], wanted)
    assert_same([predict(server, name, {"features": rows[0]})["prediction"]], wanted[:1])


@pytest.mark.parametrize("name", KINDS)
def test_probabilities_are_the_estimators_with_its_classes(server: Server, kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    document = {"features": cells(first(kind.rows)), "probabilities": True}
    classes = getattr(kind.estimator, "classes_", None)
    if classes is None or isinstance(classes, list) or not hasattr(kind.estimator, "predict_proba"):
        assert server.post(f"/models/{name}/predict", document).status == 400
        return
    answer = predict(server, name, document)
    assert_same(answer["classes"], [cell(label) for label in classes])
    assert_same(answer["probabilities"], expected(kind, "predict_proba"))
    assert_same(answer["predictions"], expected(kind))


def tensors(metadata: dict[str, Any], rows: list[list[Any]]) -> list[dict[str, Any]]:
    """Rows as the tensors that the model's metadata asks for."""
    inputs = metadata["inputs"]
    if len(inputs) == 1 and len(inputs[0]["shape"]) == 2:
        return [inputs[0] | {"shape": [len(rows), len(rows[0])], "data": [value for row in rows for value in row]}]
    columns = zip(*rows, strict=True)
    return [item | {"shape": [len(rows)], "data": list(column)} for item, column in zip(inputs, columns, strict=True)]


@pytest.mark.parametrize("name", KINDS)
def test_the_open_inference_protocol_answers_as_the_estimator_does(
    server: Server, kinds: dict[str, Kind], name: str
) -> None:
    kind = kinds[name]
    metadata = server.get(f"/v2/models/{name}").json
    answer = server.post(f"/v2/models/{name}/infer", {"inputs": tensors(metadata, cells(first(kind.rows)))})
    assert answer.status == 200, answer.body
    outputs = {output["name"]: output for output in answer.json["outputs"]}
    assert [output["name"] for output in metadata["outputs"]] == list(outputs)
    for output in metadata["outputs"]:
        found, wanted = outputs[output["name"]], np.array(expected(kind, output["name"]), dtype=object)
        assert found["datatype"] == output["datatype"]
        assert found["shape"] == list(wanted.shape)
        assert_same(found["data"], wanted.ravel().tolist())


def test_numbers_take_the_fast_path_and_all_kinds_of_layout_were_met(server: Server, saved: Path) -> None:
    """What the tests above say would be little, were all models served in one and the same way."""
    manifests = [json.loads((saved / name / "1" / "manifest.json").read_text()) for name in KINDS]
    assert {manifest["signature"]["layout"] for manifest in manifests} == {"matrix", "frame", "objects", "text"}
    engines = {model["engine"] for model in server.get("/").json["models"]}
    assert engines in ({"onnx", "joblib"}, {"joblib"})
    by_name = dict(zip(KINDS, manifests, strict=True))
    for name in ("labels-string", "numeric-frame", "regressor", "forest", "classifier-multi-output"):
        assert by_name[name]["signature"]["layout"] == "matrix"
        assert by_name[name]["engines"][0] == "onnx", by_name[name]["onnx"]
