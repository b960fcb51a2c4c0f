"""``POST /feedback`` as Flask's test client sees it: what is matched, counted, refused as a whole, and done once."""

from __future__ import annotations

import fcntl
import json
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from operator_models import Factor
from prometheus_client import CollectorRegistry
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

from muelle.bundle import save
from service.app import create_app
from service.auth import new_key
from service.feedback import Feedback
from service.feedback_metrics import FeedbackMetrics
from service.memory import Memory
from service.metrics import Metrics
from service.models import Models
from service.protocols.feedback import Label
from service.settings import Settings

IRIS = "/models/iris/predict"
ROW = [5.1, 3.5, 1.4, 0.2]
JSON = "application/json"
PLANTS = np.arange(40.0).reshape(-1, 2)


class Log:
    """What the prediction log was handed."""

    def __init__(self) -> None:
        self.labels: list[Label] = []

    def feedback(self, labels: Sequence[Label]) -> None:
        self.labels += labels


class App:
    """A worker's application, with its memory in a folder."""

    def __init__(self, settings: Settings, directory: Path, slot: int = 0, *, load: bool = True) -> None:
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.counted = FeedbackMetrics(self.registry)
        self.memory = Memory(directory, slot, settings.feedback_rows or 1)
        self.feedback = Feedback(self.counted, self.memory, directory / "feedback.lock")
        self.models = Models(settings, metrics, feedback=self.feedback)
        if load:
            self.models.load()
        self.log = Log()
        app = create_app(settings, self.models, metrics, feedback=self.feedback, prediction_log=self.log)  # type: ignore[arg-type]  # all that is asked of it
        self.client = app.test_client()

    def post(self, path: str, document: Any, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, data=json.dumps(document), content_type=JSON, headers=named)

    def predict(self, path: str = IRIS, features: Any = ROW, **headers: str) -> str:
        answer = self.post(path, {"features": features}, **headers)
        assert answer.status_code == 200, answer.get_data()
        return str(answer.headers["X-Request-Id"])

    def tell(self, document: Any, **headers: str) -> Any:
        answer = self.post("/feedback", document, **headers)
        assert answer.status_code == 200, answer.get_data()
        return answer.get_json()

    def refused(self, document: Any) -> tuple[int, str, str]:
        answer = self.post("/feedback", document)
        found = answer.get_json()
        return answer.status_code, found["code"], found["error"]

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def total(self, name: str) -> float:
        return sum(
            sample.value for family in self.registry.collect() for sample in family.samples if sample.name == name
        )


@pytest.fixture(scope="module")
def bundles(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, classifiers of words, flags and of 25 classes, a regressor, and one of two values a row."""
    folder = tmp_path_factory.mktemp("feedback-models")
    for name in ("iris", "linear"):
        (folder / name).symlink_to(repository / name)
    classes = {
        "words": np.array(["oak", "elm"] * 10),
        "flags": np.array([True, False] * 10),
        "many": np.array([*range(5)] * 4),
    }
    for name, target in classes.items():
        estimator = DecisionTreeClassifier().fit(PLANTS, target)
        save(estimator, PLANTS, name=name, version="1", repository=folder, onnx=False)
    wide = np.arange(200.0).reshape(-1, 2)
    more = DecisionTreeClassifier().fit(wide, np.arange(100) % 25)
    save(more, wide, name="more", version="1", repository=folder, onnx=False)
    rows = np.arange(20.0).reshape(-1, 1)
    allowed = ("operator_models",)
    save(Factor().fit(rows), rows, name="double", version="1", repository=folder, onnx=False, allowed_modules=allowed)
    both = LinearRegression().fit(PLANTS, PLANTS)
    save(both, PLANTS, name="pair", version="1", repository=folder, onnx=False)
    return folder


Make = Callable[..., App]


@pytest.fixture
def make(bundles: Path, tmp_path: Path) -> Make:
    def made(*, slot: int = 0, load: bool = True, **settings: Any) -> App:
        allowed = ("operator_models",)
        given = {"models": (bundles,), "access_log": False, "feedback_rows": 1_000, "allowed_modules": allowed}
        return App(Settings(**(given | settings)), tmp_path, slot, load=load)

    return made


@pytest.fixture
def app(make: Make) -> App:
    return make()


def counts(matched: int = 0, duplicate: int = 0, unmatched: int = 0) -> dict[str, int]:
    return {"matched": matched, "duplicate": duplicate, "unmatched": unmatched}


def test_a_label_meets_its_prediction_once(app):
    request_id = app.predict()
    assert app.tell({"request_id": request_id, "label": 0}) == counts(matched=1)
    assert app.tell({"request_id": request_id, "label": 0}) == counts(duplicate=1)
    assert app.tell({"request_id": request_id, "label": 1}) == counts(duplicate=1)
    assert app.tell({"request_id": request_id, "row": 1, "label": 0}) == counts(unmatched=1)
    iris = {"model": "iris", "version": "1"}
    assert app.value("muelle_feedback_total", result="matched", **iris) == 1
    assert app.value("muelle_feedback_total", result="duplicate", **iris) == 2
    assert app.value("muelle_feedback_total", result="unmatched", model="unknown", version="unknown") == 1
    assert app.value("muelle_feedback_outcomes_total", actual="0", predicted="0", **iris) == 1
    assert app.value("muelle_feedback_correct_total", **iris) == 1
    assert app.total("muelle_feedback_outcomes_total") == 1


def test_both_protocols_are_remembered(app):
    inputs = [{"name": "input", "shape": [2, 4], "datatype": "FP64", "data": [ROW, ROW]}]
    answer = app.post("/v2/models/iris/infer", {"inputs": inputs})
    labels = [{"request_id": answer.headers["X-Request-Id"], "row": row, "label": 0} for row in (0, 1)]
    assert app.tell(labels) == counts(matched=2)
    alone = app.post("/v2/models/iris/infer", {"inputs": inputs, "outputs": [{"name": "predict_proba"}]})
    # Nothing was predicted that a class could be compared to.
    assert app.tell({"request_id": alone.headers["X-Request-Id"], "label": 0}) == counts(unmatched=1)


def test_labels_of_several_models_come_in_one_list(app):
    ids = {name: app.predict(f"/models/{name}/predict", [3.0, 4.0]) for name in ("words", "flags", "many")}
    ids["linear"] = app.predict("/models/linear/predict", [1.0])
    labels = {"words": "oak", "flags": True, "many": 1.0, "linear": 5}
    assert app.tell([{"request_id": ids[name], "label": label} for name, label in labels.items()]) == counts(matched=4)
    assert {name: app.value("muelle_feedback_total", model=name, version="1", result="matched") for name in ids} == (
        dict.fromkeys(ids, 1.0)
    )


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("iris", 3, "one of the classes 0, 1, 2, got 3"),
        ("iris", "0", 'one of the classes 0, 1, 2, got "0"'),
        ("iris", True, "one of the classes 0, 1, 2, got true"),
        ("iris", 0.5, "one of the classes 0, 1, 2, got 0.5"),
        ("words", "ash", 'one of the classes "elm", "oak", got "ash"'),
        ("words", 0, 'one of the classes "elm", "oak", got 0'),
        ("flags", 1, "one of the classes false, true, got 1"),
        ("linear", "3", 'a number, got "3"'),
        ("linear", False, "a number, got false"),
    ],
)
def test_a_label_that_the_model_does_not_know_is_refused(app, name, label, expected):
    features = {"iris": ROW, "linear": [1.0]}.get(name, [3.0, 4.0])
    request_id = app.predict(f"/models/{name}/predict", features)
    assert app.refused({"request_id": request_id, "label": label})[2] == f"label: expected {expected}"
    status, _, error = app.refused([{"request_id": "other", "label": 1}, {"request_id": request_id, "label": label}])
    assert (status, error) == (400, f"[1].label: expected {expected}")


def test_a_long_list_of_classes_is_not_listed_whole(app):
    request_id = app.predict("/models/more/predict", [3.0, 4.0])
    assert "19 or another of its 25 classes, got 99" in app.refused({"request_id": request_id, "label": 99})[2]


def test_of_a_refused_list_nothing_is_counted(app):
    good = [{"request_id": app.predict(), "label": 0} for _ in range(3)]
    before = app.total("muelle_feedback_total")
    for bad in (
        {"request_id": app.predict(), "label": 7},
        {"request_id": "no such", "label": 1},
        {"request_id": "a", "row": -1, "label": 1},
    ):
        assert app.refused([*good, bad])[0] == 400
    assert app.total("muelle_feedback_total") == before
    assert app.log.labels == []
    assert app.tell(good) == counts(matched=3)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ([{"request_id": "a", "label": 1}] * 1_001, "invalid_shape"),
        ([], "invalid_shape"),
        ("text", "invalid_shape"),
        ({"request_id": "x" * 5_000, "label": 1}, "invalid_value"),
        ({"request_id": "a", "label": float("nan")}, "invalid_json"),
        ({"request_id": "a", "row": 2**31, "label": 1}, "invalid_value"),
        ({"request_id": "a", "label": 1, "observed_at": "2999-01-01T00:00:00Z"}, "invalid_value"),
        ({"request_id": "a", "label": 1, "observed_at": "2026-01-01T00:00:00"}, "invalid_value"),
    ],
)
def test_hostile_bodies_are_the_callers_fault(app, document, code):
    assert app.refused(document)[:2] == (400, code)


def test_other_refusals_are_those_of_a_prediction(make, tmp_path):
    key, line = new_key("clinic")
    (tmp_path / "keys").write_text(line)
    app = make(api_keys_file=tmp_path / "keys", max_body_bytes=200)
    label = {"request_id": "a", "label": 1}
    assert [app.post("/feedback", label, X_API_Key=given).status_code for given in ("", "wrong", key)] == [
        401,
        403,
        200,
    ]
    assert app.post("/feedback", [label] * 20, X_API_Key=key).status_code == 413
    headers = {"X-API-Key": key}
    assert app.client.post("/feedback", data="a=b", content_type="text/plain", headers=headers).status_code == 415
    assert app.client.get("/feedback", headers=headers).status_code == 405


def test_regression_errors_are_sums_by_direction(app):
    path = "/models/double/predict"
    for value, label in ((4.0, 10.0), (4.0, 5.0), (4.0, 8.0)):
        assert app.tell({"request_id": app.predict(path, [value]), "label": label}) == counts(matched=1)
    model = {"model": "double", "version": "1"}
    assert app.value("muelle_feedback_absolute_error_total", direction="under", **model) == 2
    assert app.value("muelle_feedback_absolute_error_total", direction="over", **model) == 3
    assert app.value("muelle_feedback_squared_error_total", **model) == 4 + 9
    assert app.total("muelle_feedback_outcomes_total") == 0


def test_one_absurd_label_does_not_stop_the_sums_for_ever(app):
    path = "/models/double/predict"
    model = {"model": "double", "version": "1"}
    for label in (1e308, -1e308, 10**18):
        app.tell({"request_id": app.predict(path, [4.0]), "label": label})
    before = app.value("muelle_feedback_squared_error_total", **model)
    app.tell({"request_id": app.predict(path, [4.0]), "label": 9.0})
    assert before is not None
    assert math.isfinite(before)
    assert app.value("muelle_feedback_squared_error_total", **model) == pytest.approx(before + 1, abs=0.5)


def test_more_classes_than_have_a_counter_are_counted_together(app):
    path = "/models/more/predict"
    for label in (3, 24):
        assert app.tell({"request_id": app.predict(path, [3.0, 4.0]), "label": label}) == counts(matched=1)
    more = {"model": "more", "version": "1"}
    actual = {
        sample.labels["actual"]
        for family in app.registry.collect()
        for sample in family.samples
        if sample.name == "muelle_feedback_outcomes_total" and sample.value
    }
    assert actual == {"3", "other"}
    assert app.value("muelle_feedback_outcomes_total", actual="19", predicted="other", **more) == 0
    assert app.value("muelle_feedback_outcomes_total", actual="20", predicted="other", **more) is None
    assert app.value("muelle_feedback_lag_seconds_count", **more) == 2


def test_the_lag_is_from_the_answer_to_when_it_was_known(app):
    iris = {"model": "iris", "version": "1"}
    early = {"request_id": app.predict(), "label": 0, "observed_at": "2001-01-01T00:00:00Z"}
    assert app.tell(early) == counts(matched=1)
    # Known before it was predicted: a lag of nothing, not a negative one.
    assert app.value("muelle_feedback_lag_seconds_sum", **iris) == 0
    assert app.value("muelle_feedback_lag_seconds_bucket", le="60.0", **iris) == 1


def test_all_series_are_there_from_the_start(app):
    assert app.value("muelle_feedback_total", model="iris", version="1", result="duplicate") == 0
    assert app.value("muelle_feedback_total", model="unknown", version="unknown", result="unmatched") == 0
    assert app.value("muelle_feedback_outcomes_total", model="iris", version="1", actual="2", predicted="0") == 0
    assert app.value("muelle_feedback_lag_seconds_count", model="linear", version="1") == 0
    assert app.value("muelle_feedback_squared_error_total", model="linear", version="1") == 0
    assert app.value("muelle_feedback_peer_requests_total", result="failed") == 0
    assert app.value("muelle_feedback_squared_error_total", model="iris", version="1") is None
    assert 0.8 < (app.value("muelle_model_score", model="iris", version="1", score="accuracy") or 0) <= 1
    # Two values a row: there is nothing that one label could be compared to.
    assert app.value("muelle_feedback_total", model="pair", version="1", result="matched") is None
    assert app.tell({"request_id": app.predict("/models/pair/predict", [1.0, 2.0]), "label": 1}) == counts(unmatched=1)


def test_no_request_can_add_a_series(app):
    def series() -> set[Any]:
        found = {(s.name, *sorted(s.labels.items())) for f in app.registry.collect() for s in f.samples}
        return {item for item in found if item[0].startswith("muelle_feedback")}

    before = series()
    for number in range(50):
        app.tell([{"request_id": app.predict(), "label": number % 3}, {"request_id": f"no{number}", "label": "x"}])
        app.refused({"request_id": app.predict(), "label": f"class-{number}"})
    assert series() == before


def test_a_callers_own_id_means_its_latest_prediction(app):
    first, last = "/models/words/predict", IRIS
    app.predict(first, [3.0, 4.0], X_Request_Id="mine")
    app.predict(last, ROW, X_Request_Id="mine")
    assert app.refused({"request_id": "mine", "label": "oak"})[0] == 400
    assert app.tell({"request_id": "mine", "label": 0}) == counts(matched=1)
    app.predict(first, [3.0, 4.0], X_Request_Id="mine")
    assert app.tell({"request_id": "mine", "label": "oak"}) == counts(matched=1)


def test_the_same_row_twice_in_a_list_counts_once(app):
    label = {"request_id": app.predict(), "label": 0}
    assert app.tell([label, {**label, "label": 1}, label]) == counts(matched=1, duplicate=2)


def test_any_worker_takes_the_label_of_any(make):
    first, second = make(slot=0), make(slot=1)
    request_id = first.predict()
    assert second.tell({"request_id": request_id, "label": 0}) == counts(matched=1)
    assert first.tell({"request_id": request_id, "label": 0}) == counts(duplicate=1)


def test_of_many_that_bring_the_same_labels_at_once_one_counts_each(make):
    workers = [make(slot=slot) for slot in range(2)]
    ids = [workers[number % 2].predict() for number in range(50)]
    labels = [{"request_id": request_id, "label": 0} for request_id in ids]
    answers: list[dict[str, int]] = []
    start = threading.Barrier(6)

    def tell(app: App) -> None:
        start.wait(30)
        answers.append(app.tell(labels))

    threads = [threading.Thread(target=tell, args=(workers[number % 2],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 6
    assert sum(answer["matched"] for answer in answers) == 50
    assert sum(answer["duplicate"] for answer in answers) == 250
    assert sum(app.total("muelle_feedback_correct_total") for app in workers) == 50


def test_a_worker_that_stands_still_with_the_lock_costs_others_their_labels_not_their_threads(app, tmp_path):
    label = {"request_id": app.predict(), "label": 0}
    with (tmp_path / "feedback.lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = app.post("/feedback", label)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "overloaded")
        assert answer.headers["Retry-After"]
    assert app.tell(label) == counts(matched=1)


def test_a_version_that_is_no_longer_served_has_no_labels(make, bundles):
    before = make()
    request_id = before.predict()
    after = make(slot=1, serve=("linear",))
    assert after.tell({"request_id": request_id, "label": 0}) == counts(unmatched=1)
    # It is not spent: where the version is served, the label still counts.
    assert before.tell({"request_id": request_id, "label": 0}) == counts(matched=1)


def test_labels_go_to_the_prediction_log_once_matched_or_not(app):
    request_id = app.predict()
    label = {"request_id": request_id, "label": 0, "observed_at": "2026-01-01T00:00:00Z"}
    app.tell([label, {"request_id": "unknown", "row": 3, "label": "x"}])
    assert [item[:3] for item in app.log.labels] == [(request_id, 0, 0), ("unknown", 3, "x")]
    # One that another replica passes on was logged there.
    found = app.tell([label], X_Muelle_Forwarded="1")
    assert found == {**counts(duplicate=1), "results": ["duplicate"]}
    assert len(app.log.labels) == 2


def test_what_another_replica_asks_for_in_vain_is_counted_there(app):
    found = app.tell([{"request_id": "unknown", "label": 1}], X_Muelle_Forwarded="1")
    assert found == {**counts(unmatched=1), "results": ["unmatched"]}
    assert app.value("muelle_feedback_total", model="unknown", version="unknown", result="unmatched") == 0


def test_while_models_load_labels_are_put_off(make):
    app = make(load=False)
    app.models._thread = threading.Thread(target=threading.Event().wait, args=(60,), daemon=True)
    app.models._thread.start()
    assert app.refused({"request_id": "a", "label": 1})[:2] == (503, "not_ready")


def test_a_worker_without_room_to_remember_answers_and_matches_what_others_do(make, tmp_path):
    (tmp_path / "memory-w0.ring").mkdir()
    app, other = make(slot=0), make(slot=1)
    assert app.tell({"request_id": app.predict(), "label": 0}) == counts(unmatched=1)
    # What another worker remembers is matched here all the same.
    assert app.tell({"request_id": other.predict(), "label": 0}) == counts(matched=1)


def test_feedback_that_is_switched_off_has_no_path(make):
    app = make(feedback_rows=0)
    assert app.refused({"request_id": "a", "label": 1})[:2] == (404, "not_found")
    assert "feedback" not in app.client.get("/").get_json()["links"]
    assert "/feedback" not in app.client.get("/openapi.json").get_json()["paths"]


def test_feedback_is_among_the_links_and_described(app):
    assert app.client.get("/").get_json()["links"]["feedback"] == "/feedback"
    assert "post" in app.client.get("/openapi.json").get_json()["paths"]["/feedback"]
