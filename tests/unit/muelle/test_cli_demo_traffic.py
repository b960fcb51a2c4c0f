"""The made-up traffic of ``muelle demo --monitor``: real rows, a few mistakes, drift in one feature alone."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import numpy as np
import pytest

from muelle.cli.demo_traffic import DRIFTING_FEATURE, DRIFTING_MODEL, Mixture, Rows, Sender, real_rows
from muelle.inference import Predictor


@pytest.fixture(scope="module")
def rows() -> dict[str, Rows]:
    return real_rows()


def test_the_rows_are_those_that_the_models_know(rows, repository):
    assert set(rows) == {"linear", "breast-cancer", "iris"}
    for name, found in rows.items():
        predictor = Predictor.load(next((repository / name).iterdir()))
        assert found.names == predictor.signature.names
        assert len(predictor.predict(found.rows)) == len(found.rows)


def test_most_requests_are_good_and_some_are_what_clients_get_wrong(rows):
    known = {name: {tuple(row) for row in found.rows} for name, found in rows.items()}
    good, batches, mistakes, asked_for_probabilities = 0, 0, 0, 0
    for request in islice(Mixture(rows), 2000):
        model = request.path.split("/")[2]
        document = json.loads(request.body)
        features = document["features"]
        batch = features if features and isinstance(features[0], list) else [features]
        if model in known and all(tuple(row) in known[model] for row in batch):
            good += 1
            batches += len(batch) > 1
            asked_for_probabilities += document.get("probabilities", False)
        else:
            mistakes += 1
    assert 40 <= mistakes <= 120
    assert 100 <= batches <= 220
    assert 600 <= asked_for_probabilities <= 1000
    assert good + mistakes == 2000


def test_the_same_seed_gives_the_same_requests(rows):
    assert list(islice(Mixture(rows, 5), 50)) == list(islice(Mixture(rows, 5), 50))
    assert list(islice(Mixture(rows, 5), 50)) != list(islice(Mixture(rows, 6), 50))


def test_drift_shifts_one_feature_of_one_model(rows):
    calm, drifting = Mixture(rows), Mixture(rows)
    drifting.drifting = True
    place = rows[DRIFTING_MODEL].names.index(DRIFTING_FEATURE)
    shift = 1.5 * rows[DRIFTING_MODEL].deviations[place]
    shifted = 0
    for before, after in islice(zip(calm, drifting, strict=True), 500):
        assert before.path == after.path
        if before.body == after.body:
            continue
        assert DRIFTING_MODEL in before.path or "rose" in before.path
        one, other = (json.loads(request.body)["features"] for request in (before, after))
        if isinstance(one[0], list) or "n/a" in one or len(one) < 30:
            continue
        difference = np.array(other) - np.array(one)
        assert difference[place] == pytest.approx(shift)
        assert not np.delete(difference, place).any()
        shifted += 1
    assert shifted > 100


class Counting(BaseHTTPRequestHandler):
    """Answers everything with 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_it_keeps_to_its_rate_and_counts_what_was_answered(rows):
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever).start()
        sender = Sender("127.0.0.1", server.server_port, rate=50)
        end = time.monotonic() + 1
        sender.send(iter(Mixture(rows)), lambda: time.monotonic() > end)
        server.shutdown()
    # A slow machine may send fewer, never more.
    assert 1 <= sender.answered[200] <= 52
    assert sender.summary() == f"{sender.answered[200]} requests: {sender.answered[200]} answered 200"


def test_a_service_that_is_away_is_no_reason_to_stop(rows):
    sender = Sender("127.0.0.1", 9, rate=1000)
    calls = iter(range(5))
    sender.send(iter(Mixture(rows)), lambda: next(calls) == 4)
    assert sender.answered == {0: 4}
    assert sender.summary() == "4 requests: 4 without an answer"
