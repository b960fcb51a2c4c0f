"""The buffers between requests and counters: bounded in rows and bytes, and nothing gets lost uncounted."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from muelle.bundle.profile import build_profile
from muelle.bundle.signature import Feature, Output, Signature
from service import observations
from service.distributions import Distributions
from service.metrics import Metrics
from service.observations import ModelObservations, Observations

SIGNATURE = Signature("matrix", (Feature("x", "float64"),), (Output("predict", "float64", (-1,)),))
ROWS = np.arange(100.0).reshape(-1, 1)
PROFILE = build_profile(SIGNATURE, ROWS, ROWS[:, 0])


class Bench:
    """The metrics of one process, and a model's buffer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.all = Observations(self.metrics, [Distributions(self.registry)])
        self.model = self.of("m")

    def of(self, name: str) -> ModelObservations:
        return self.all.of(name, "1", SIGNATURE, PROFILE)

    def add(self, rows: int, body_bytes: int = 100, model: ModelObservations | None = None) -> None:
        values = np.zeros((rows, 1))
        (model or self.model).add("id", values, {"predict": values[:, 0]}, rows, body_bytes)

    def counted(self, model: str = "m") -> float | None:
        labels = {"model": model, "version": "1", "feature": "x", "bin": "00"}
        return self.registry.get_sample_value("muelle_feature_bin_total", labels)

    def dropped(self, reason: str = "full", model: str = "m") -> float | None:
        labels = {"model": model, "version": "1", "reason": reason}
        return self.registry.get_sample_value("muelle_observations_dropped_total", labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_scrape_counts_what_has_gathered(bench: Bench) -> None:
    bench.add(3)
    bench.add(4)
    assert bench.counted() == 0
    assert b'muelle_feature_bin_total{bin="00",feature="x",model="m",version="1"} 7.0' in bench.metrics.render(None)[0]
    assert bench.counted() == 7
    assert bench.dropped() == bench.dropped("error") == 0
    assert bench.all.held_bytes == 0


def test_the_last_rows_are_counted_when_a_worker_ends(bench: Bench) -> None:
    bench.add(5)
    bench.metrics.close()
    assert bench.counted() == 5


def test_a_full_buffer_drops_and_says_so_until_it_was_counted(bench: Bench) -> None:
    for _ in range(5):
        bench.add(20_000)
    other = bench.of("other")
    bench.add(10, model=other)
    bench.all.flush()
    # The third went over; what came after it was dropped.
    assert bench.counted() == 60_000
    assert bench.dropped() == 40_000
    assert bench.counted("other") == 10
    assert bench.dropped(model="other") == 0
    bench.add(20)
    bench.all.flush()
    assert bench.counted() == 60_020
    assert bench.dropped() == 40_000


def test_all_models_together_hold_no_more_than_so_many_bytes(bench: Bench) -> None:
    other = bench.of("other")
    bench.add(1, body_bytes=observations.MOST_BYTES - 2_000)
    bench.add(1, body_bytes=5_000, model=other)
    assert bench.all.held_bytes >= observations.MOST_BYTES
    bench.add(1)
    bench.add(2, model=other)
    bench.all.flush()
    assert bench.all.held_bytes == 0
    assert (bench.counted(), bench.dropped()) == (1, 1)
    assert (bench.counted("other"), bench.dropped(model="other")) == (1, 2)


def test_probabilities_that_nobody_asked_for_take_no_room() -> None:
    classes = tuple(range(10_000))
    outputs = (Output("predict", "int64", (-1,), classes), Output("predict_proba", "float64", (-1, 10_000), classes))
    signature = Signature("matrix", SIGNATURE.inputs, outputs)
    metrics = Metrics(CollectorRegistry())
    everything = Observations(metrics, [])
    model = everything.of("m", "1", signature, PROFILE)
    model.add("id", np.zeros((500, 1)), {"predict": np.zeros(500)}, 500, 100)
    assert everything.held_bytes < 20_000
    model.add("id", np.zeros((1, 1)), {"predict": np.zeros(1), "predict_proba": np.zeros((1, 10_000))}, 1, 100)
    assert everything.held_bytes > 80_000


def test_what_cannot_be_counted_is_dropped_and_ends_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.model.add("id", np.zeros((2, 0)), {}, 2, 100)
    bench.all.flush()
    assert "2 rows could not be observed by ModelDistributions" in caplog.text
    assert bench.dropped("error") == 2
    assert bench.all.held_bytes == 0
    bench.add(3)
    assert bench.metrics.render(None)[0]
    assert bench.counted() == 3


def test_no_row_is_lost_between_threads(bench: Bench) -> None:
    def ask() -> None:
        for _ in range(2_000):
            bench.add(2)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        bench.all.flush()
    bench.all.flush()
    counted, dropped = bench.counted(), bench.dropped()
    assert counted is not None
    assert dropped is not None
    assert counted + dropped == 16_000
    assert bench.all.held_bytes == 0
