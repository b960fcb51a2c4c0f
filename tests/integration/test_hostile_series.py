"""With everything switched on, nothing that a caller can send makes a series: they are counted before and after."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import string
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifecycle import FOUR, LINEAR, Series, samples, scrape, total, wait_loads
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support import Server, free_port
from trace_receiver import Receiver

from muelle.bundle import save

#: In whatever a caller chooses, so that it can be looked for.
MARK = "evil"
CLASSES = 10_000
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW")
#: What one model can have: 51 features and values of its answer with 12 bins each and their references, 21 by 21
#: outcomes, and some two hundred of requests, stages, rows and confidence.
MOST_OF_A_MODEL = 3_000
#: A worker's, a companion's, and those of the whole server.
MOST_OF_THE_REST = 300
CITY = "/models/cities/predict"
MANY = "/models/many/predict"


@dataclass
class Watched:
    """A server, and the port where it also shows its metrics."""

    server: Server
    metrics_port: int

    def second_page(self) -> dict[Series, float]:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return samples(connection.getresponse().read().decode())


@pytest.fixture(scope="module")
def bundles(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, a model with 10,000 classes, and one of strings."""
    folder = tmp_path_factory.mktemp("hostile-models")
    for name in ("linear", "iris", "breast-cancer"):
        (folder / name).symlink_to(repository / name)
    rows = np.arange(float(CLASSES)).reshape(-1, 1)
    names = np.array([f"{MARK} class {number}" for number in range(CLASSES)])
    many = KNeighborsClassifier(1).fit(np.vstack([rows, rows]), np.concatenate([names, names]))
    save(many, rows, name="many", version="1", repository=folder, onnx=False)
    table = pd.DataFrame({"city": ["Vigo", "Palma", "Cádiz"] * 50, "area": np.arange(150.0)})
    prepare = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough")
    cities = make_pipeline(prepare, LogisticRegression(max_iter=2000)).fit(table, ["no", "yes", "yes"] * 50)
    save(cities, table, name="cities", version="1", repository=folder, onnx=False)
    return folder


@pytest.fixture(scope="module")
def watched(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server on which everything is on that makes series."""
    folder, port = tmp_path_factory.mktemp("hostile-server"), free_port()
    with Receiver() as receiver:
        settings = {
            "MUELLE_DEFAULT_MODEL": "linear",
            "MUELLE_METRICS_PORT": str(port),
            "MUELLE_PREDICTION_LOG": str(folder / "log"),
            # Not in the midst of it: a model's first rows that are shipped make a series, whoever sent them.
            "MUELLE_PREDICTION_LOG_SECONDS": "3600",
            "MUELLE_UI": "true",
            "MUELLE_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        }
        with Server(bundles, folder, settings) as server:
            server.wait_ready()
            wait_loads(server, 10)
            yield Watched(server, port)


class Attack:
    """Everything that a caller can choose, chosen at random.

    Parameters
    ----------
    server : Server
        Who is attacked.
    seed : int
        Two of the same seed send the same.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self.statuses: Counter[int] = Counter()
        self.unmatched = 0

    def word(self) -> str:
        """Return text that names nothing, fit for a URL and a header."""
        letters = string.ascii_letters + string.digits + "-._"
        return MARK + "".join(self._random.choices(letters, k=self._random.randint(4, 40)))

    def send(self, method: str, path: str, document: object = None) -> bytes:
        """Ask, with headers at random, and note the status."""
        word = self.word()
        headers = {
            "X-Request-Id": word,
            "User-Agent": word,
            "Accept": f"text/{word}",
            "Content-Type": "application/json",
            "Traceparent": self._random.choice([word, f"00-{self._random.getrandbits(128):032x}-{1:016x}-01"]),
            "Tracestate": f"{word.lower()}=1",
            f"X-{MARK}-{self._random.getrandbits(64):x}": word,
        }
        body = None if document is None else json.dumps(document)
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (http.client.HTTPException, OSError):
            # What the parser refuses costs the connection.
            self._connection.close()
            self.statuses[0] += 1
            return b""
        self.statuses[response.status] += 1
        return answer

    def paths(self, count: int) -> None:
        """Ask for paths, models and versions that there aren't, by all methods."""
        for _ in range(count):
            word, version, method = self.word(), self.word(), self._random.choice(METHODS)
            path = self._random.choice(
                [
                    f"/{word}",
                    f"/{word}/{version}/{word}",
                    f"/models/{word}/predict",
                    f"/models/{word}/versions/{version}/predict",
                    f"/models/linear/versions/{version}/predict",
                    f"/v2/models/{word}/infer",
                    f"/v2/models/iris/versions/{version}/infer",
                    f"/v2/models/{word}/versions/{version}",
                    f"/v2/models/{word}/ready",
                    f"/models/linear/predict/{word}",
                    f"/predict?model={word}",
                    f"/metrics?name={word}",
                    f"/ui/{word}",
                    f"/feedback/{word}",
                    "/metrics",
                    "/predict",
                    "/feedback",
                ]
            )
            self.send(method, path, self._random.choice([None, FOUR, {word: version}]))

    def bodies(self, count: int) -> None:
        """Send bodies with names, outputs, parameters and labels of the caller's own."""
        for number in range(count):
            word = self.word()
            self.send("POST", LINEAR, {"features": [{word: number}]})
            self.send("POST", "/models/cities/predict", {"features": [{"city": word, "area": word}]})
            inputs = [{"name": word, "shape": [1, 1], "datatype": word, "data": [number]}]
            self.send("POST", "/v2/models/linear/infer", {"inputs": inputs, "outputs": [{"name": word}], "id": word})
            good = [{"name": "features", "shape": [1, 1], "datatype": "FP64", "data": [number]}]
            self.send("POST", "/v2/models/linear/infer", {"inputs": good, "id": word, "parameters": {word: word}})
            self.send("POST", "/feedback", {"request_id": word, "label": word, word: word})

    def categories(self, count: int) -> None:
        """Send so many different strings to a model that takes strings."""
        for start in range(0, count, 500):
            rows = [{"city": f'{self.word()}"{{}},\n {number}', "area": number} for number in range(start, start + 500)]
            self.send("POST", CITY, {"features": rows})

    def feedback(self, count: int) -> None:
        """Send so many labels for requests that never were."""
        for start in range(0, count, 500):
            labels = [{"request_id": f"{self.word()}{start}", "row": row, "label": self.word()} for row in range(500)]
            answer = json.loads(self.send("POST", "/feedback", labels))
            assert answer == {"matched": 0, "duplicate": 0, "unmatched": 500}
            self.unmatched += 500

    def outcomes(self) -> None:
        """Have every class predicted, and say of each row that it was another one."""
        for start in range(0, CLASSES, 500):
            request_id = self.word()
            rows = {"features": [[float(number)] for number in range(start, start + 500)]}
            predicted = self._server.post(MANY, rows, {"X-Request-Id": request_id})
            assert predicted.status == 200
            assert len(set(predicted.json["predictions"])) == 500
            others = [f"{MARK} class {(number * 7 + 3) % CLASSES}" for number in range(start, start + 500)]
            labels = [{"request_id": request_id, "row": row, "label": label} for row, label in enumerate(others)]
            # Some of the past and some of now, and once with a class that there isn't.
            labels[0]["observed_at"] = f"{2000 + start // 500}-01-01T00:00:00Z"
            answer = self._server.post("/feedback", labels)
            assert answer.json == {"matched": 500, "duplicate": 0, "unmatched": 0}
            wrong = self._server.post("/feedback", {"request_id": request_id, "label": f"{MARK} no class"})
            assert wrong.status == 400

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def settled(watched: Watched, unmatched: int, outcomes: int, rows: int) -> dict[Series, float]:
    """Return a scrape in which all that was sent is counted, by both workers."""

    wanted = [unmatched, outcomes, outcomes, rows]
    found: list[float] = []

    def arrived() -> bool:
        page = scrape(watched.server)
        found[:] = [
            total(page, "muelle_feedback_total", result="unmatched"),
            total(page, "muelle_feedback_outcomes_total", model="many"),
            # Ten thousand probabilities a row would be a lot to keep: some are let go, and counted as such.
            total(page, "muelle_predictions_total", model="many")
            + total(page, "muelle_observations_dropped_total", model="many"),
            total(page, "muelle_feature_bin_total", model="cities", feature="city", bin="other"),
        ]
        return found == wanted

    deadline = time.monotonic() + 30
    while not arrived():
        assert time.monotonic() < deadline, (found, wanted)
        time.sleep(0.2)
    # The last half second of the worker that was not asked.
    time.sleep(1)
    return scrape(watched.server)


def test_no_caller_can_make_a_series(watched: Watched) -> None:
    first = Attack(watched.server, 1)
    # Every status that there will be has its series from here on.
    first.paths(400)
    first.bodies(3)
    first.categories(500)
    first.feedback(500)
    first.outcomes()
    first.close()
    before = settled(watched, first.unmatched, CLASSES, 500)

    attack = Attack(watched.server, 2)
    attack.paths(1200)
    attack.bodies(60)
    attack.categories(10_000)
    attack.feedback(10_000)
    attack.outcomes()
    attack.close()
    after = settled(watched, first.unmatched + attack.unmatched, 2 * CLASSES, 10_500)

    assert attack.statuses[404] > 300
    assert attack.statuses[400] > 100
    assert attack.statuses[200] > 40
    assert set(after) == set(before)
    assert set(watched.second_page()) == set(after)


def test_all_series_have_a_bound_that_the_models_give(watched: Watched) -> None:
    found = scrape(watched.server)
    by_model = Counter(dict(labels).get("model", "") for _, labels in found)
    assert set(by_model) == {"", "unknown", "linear", "iris", "breast-cancer", "many", "cities"}
    assert all(count <= MOST_OF_A_MODEL for model, count in by_model.items() if model)
    assert by_model[""] + by_model["unknown"] <= MOST_OF_THE_REST
    classes = {dict(labels)["class"] for name, labels in found if name == "muelle_predictions_total"}
    # The first twenty of the ten thousand, in the bundle's order, are the model's own; a caller had no say in them.
    assert sum(MARK in label for label in classes) == 20
    for name, labels in found:
        own = {value for key, value in labels if key not in ("class", "actual", "predicted")}
        assert not any(MARK in value for value in own), (name, labels)


def test_what_it_remembers_and_spools_has_a_bound_too(watched: Watched) -> None:
    files = [path.name for path in watched.server.log_path.parent.rglob("*")]
    assert not any(MARK in name for name in files)
