"""What the page at /ui is told: counters that add up, reasons, and nothing of anybody's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from muelle.bundle import save
from muelle.bundle.binning import Binning
from service.distributions import Distributions
from service.metrics import SECONDS_BUCKETS, Metrics
from service.models import Models, ServedModel
from service.observations import Observations
from service.settings import Settings
from service.ui_models import models_document
from service.ui_state import Server, state_document

SERVER = Server(version="1.2.3", instance="pod/7", started_at=10.0, now=20.0, problems=())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def load(folder: Path) -> tuple[Metrics, Models]:
    metrics = Metrics(CollectorRegistry())
    observations = Observations(metrics, [Distributions(metrics.registry)])
    models = Models(Settings(models=(folder,)), metrics, observations=observations)
    models.load()
    return metrics, models


def state_of(metrics: Metrics, *models: ServedModel) -> dict[str, Any]:
    return state_document(SERVER, metrics.families(), models, models[0])


def test_requests_are_added_up_over_protocols_and_told_by_code(metrics: Metrics) -> None:
    iris = ServedModel("iris", "1", metrics.for_model("iris", "1"), state="ready", reason="")
    iris.metrics.record("simple", 200, 0.0004, rows=3)
    iris.metrics.record("oip", 200, 0.0004, rows=2)
    iris.metrics.record("oip", 400, 20.0)
    metrics.for_model().record("simple", 404, 0.1)
    document = state_of(metrics, iris)
    (found,) = document["models"]
    assert found["requests"] == {"200": 2, "400": 1, "500": 0, "503": 0}
    assert found["rows"] == 5
    assert document["unknown"]["404"] == 1
    # Not cumulative; the last bucket is open.
    assert found["seconds"] == [2, *[0] * (len(SECONDS_BUCKETS) - 1), 1]
    assert document["bounds_seconds"] == SECONDS_BUCKETS


def test_models_that_nobody_asked_have_zeros_and_say_what_is_wrong(metrics: Metrics) -> None:
    failed = ServedModel("iris", "2", metrics.for_model("iris", "2"), state="failed", reason="altered: model.onnx")
    document = state_of(metrics, failed)
    (found,) = document["models"]
    assert (found["state"], found["reason"], found["default"]) == ("failed", "altered: model.onnx", True)
    assert (found["engine"], found["digest"], found["bins"]) == (None, None, {})
    assert sum(found["requests"].values()) == found["rows"] == sum(found["seconds"]) == 0
    assert models_document(metrics.families(), [failed]) == {"models": []}


def test_it_says_which_server_this_is_and_why_it_is_not_ready(metrics: Metrics) -> None:
    document = state_document(SERVER._replace(problems=("loading",)), metrics.families(), [], None)
    assert {key: document[key] for key in ("version", "instance", "started_at", "now")} == {
        "version": "1.2.3",
        "instance": "pod/7",
        "started_at": 10.0,
        "now": 20.0,
    }
    assert (document["status"], document["problems"]) == ("not ready", ["loading"])


def test_processes_are_listed_workers_first_in_the_order_of_their_numbers() -> None:
    cpu = CounterMetricFamily("muelle_worker_cpu_seconds", "", labels=["slot"])
    memory = GaugeMetricFamily("muelle_worker_memory_bytes", "", labels=["slot"])
    for slot in ("arbiter", "10", "2"):
        cpu.add_metric([slot], 1.5)
    memory.add_metric(["2"], 1e6)
    document = state_document(SERVER, [cpu, memory], [], None)
    assert [process["slot"] for process in document["processes"]] == ["2", "10", "arbiter"]
    assert [process["memory_bytes"] for process in document["processes"]] == [1e6, 0.0, 0.0]


def test_bins_are_the_profiles_in_the_order_of_the_references(repository: Path) -> None:
    metrics, models = load(repository)
    cancer = models.get("breast-cancer", "1")
    predictor = cancer.ready_predictor()
    rows = np.random.default_rng(3).normal(12, 5, (400, 30))
    assert cancer.observations is not None
    answers = predictor.run(rows, ("predict",))
    cancer.observations.add("id", rows, answers, len(rows), 0)
    bins = state_document(SERVER, metrics.families(), [cancer], None)["models"][0]["bins"]
    references = models_document(metrics.families(), [cancer])["models"][0]["references"]
    assert bins.keys() == references.keys() == {*predictor.signature.names, "predict", "confidence"}
    for place, name in enumerate(predictor.signature.names):
        binning = Binning.of(predictor.profile.inputs[name])
        assert bins[name] == binning.count(rows[:, place]).tolist()
        assert references[name]["ratios"] == pytest.approx(binning.reference.tolist())
        assert references[name]["observations"] == binning.observations
        assert len(references[name]["bins"]) == len(binning.labels)
    edges = predictor.profile.inputs["mean radius"].edges
    names = references["mean radius"]["bins"]
    assert names[0] == f"≤ {edges[0]:.4g}"
    assert names[1] == f"{edges[0]:.4g} to {edges[1]:.4g}"
    assert names[-2:] == [f"> {edges[-1]:.4g}", "missing"]
    assert references["predict"]["bins"] == ["1", "0", "other", "missing"]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one common city and many names that stand once, text and a missing value allowed."""
    rows = pd.DataFrame(
        {
            "city": ["Cádiz"] * 30 + ["Vigo"] * 30,
            "name": ["Common"] * 40 + [f"Somebody {i}" for i in range(20)],
            "age": range(60),
            "member": [True, False] * 30,
        }
    )
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city", "name"]), remainder="passthrough"
    )
    estimator = make_pipeline(encoder, LogisticRegression(max_iter=1000)).fit(rows, ["yes", "no"] * 30)
    folder = tmp_path_factory.mktemp("people")
    save(estimator, rows, name="people", version="1", repository=folder, onnx=False)
    return folder


def test_values_of_single_rows_of_the_reference_are_not_told(people: Path) -> None:
    metrics, models = load(people)
    document = models_document(metrics.families(), models.all())
    references = document["models"][0]["references"]
    assert references["city"]["bins"] == ["Cádiz", "Vigo", "other", "missing"]
    assert references["name"]["bins"][0] == "Common"
    assert references["name"]["bins"][1:3] == ["01", "02"]
    assert b"Somebody" not in orjson.dumps(document)


def test_a_form_has_each_input_with_an_example_that_the_model_takes(people: Path) -> None:
    metrics, models = load(people)
    (form,) = models_document(metrics.families(), models.all())["models"]
    assert form["predict"] == "models/people/versions/1/predict"
    assert form["probabilities"] is True
    assert [item["dtype"] for item in form["inputs"]] == ["string", "string", "int64", "bool"]
    example = {item["name"]: item["example"] for item in form["inputs"]}
    assert models.get("people", None).ready_predictor().predict([example])[0] in ("yes", "no")
