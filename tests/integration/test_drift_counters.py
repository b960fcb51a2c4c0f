"""The counters behind drift, at a real server: each row that was answered is in one bin of each feature, once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifecycle import Series, Watch, kill, samples, scrape, total, wait_loads, wait_workers
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support import Server
from tritonclient.http import InferenceServerClient as Client
from tritonclient.http import InferInput, InferRequestedOutput

from muelle.bundle import save
from muelle.bundle.binning import Binning, chi2_quantile
from muelle.inference import Predictor

BINS = "muelle_feature_bin_total"
CANCER = "/models/breast-cancer/predict"
INFER = "/v2/models/breast-cancer/infer"
#: Half a unit of each feature's spread on top: no bin is as full as the reference's.
SHIFTED = load_breast_cancer().data[:500] + 0.25 * load_breast_cancer().data.std(axis=0)
GENERATOR = np.random.default_rng(3)
COUNT = 200
TABLE = pd.DataFrame(
    {
        "city": np.where(GENERATOR.random(COUNT) < 0.1, None, GENERATOR.choice(["Vigo", "Palma", "Cádiz"], COUNT)),
        "area": np.where(GENERATOR.random(COUNT) < 0.2, np.nan, GENERATOR.normal(80, 20, COUNT)),
        "rooms": GENERATOR.integers(1, 6, COUNT),
        "garden": GENERATOR.random(COUNT) < 0.5,
    }
)
WANTED = np.array(["no", "perhaps", "yes"])[GENERATOR.integers(0, 3, COUNT)]
TEXTS = ["good day", "bad night", "so so", "bad day"] * 20


@pytest.fixture(scope="module")
def bundles(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, a model of a table with strings and gaps, and one of texts."""
    folder = tmp_path_factory.mktemp("drift-models")
    (folder / "breast-cancer").symlink_to(repository / "breast-cancer")
    (folder / "linear").symlink_to(repository / "linear")
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), ["city"]),
        (SimpleImputer(), ["area", "rooms"]),
        remainder="passthrough",
    )
    table = make_pipeline(prepare, LogisticRegression(max_iter=2000)).fit(TABLE, WANTED)
    save(table, TABLE, name="table", version="1", repository=folder, onnx=False)
    texts = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [0, 1, 0, 1] * 20)
    save(texts, TEXTS, name="texts", version="1", repository=folder, onnx=False)
    return folder


@pytest.fixture(scope="module")
def server(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers for all tests; each waits for its own rows, and looks at what was added since it began."""
    with Server(bundles, tmp_path_factory.mktemp("drift-server")) as running:
        running.wait_ready()
        wait_loads(running, 8)
        yield running


class Since:
    """What has been counted since this was made."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._before = scrape(server)

    def settled(self, rows: int, *, model: str, feature: str, refused: int = 0) -> dict[Series, float]:
        """Return what was added, once it has so many rows of that feature, and so many requests were refused."""
        wanted = {"model": model, "feature": feature}
        arrived = total(self._before, BINS, **wanted) + rows
        all_refused = refusals(self._before) + refused

        def all_there() -> bool:
            found = scrape(self.server)
            # Those may have been another worker's, which carries its counts over at another moment.
            return total(found, BINS, **wanted) >= arrived and refusals(found) >= all_refused

        self.server.wait_for(all_there, f"to {rows} rows and {refused} refused requests")
        # Another look: the first may have come while the other worker was adding.
        return {key: value - self._before.get(key, 0.0) for key, value in scrape(self.server).items()}


@pytest.fixture
def since(server: Server) -> Since:
    return Since(server)


def refusals(found: dict[Series, float]) -> float:
    return sum(total(found, "muelle_requests_total", code=code) for code in ("400", "404"))


def counted(found: dict[Series, float], model: str, feature: str) -> dict[str, float]:
    wanted = {("model", model), ("feature", feature)}
    return {dict(has)["bin"]: value for (name, has), value in found.items() if name == BINS and wanted <= set(has)}


def expected(binning: Binning, values: Any) -> dict[str, float]:
    return dict(zip(binning.labels, binning.count(values).tolist(), strict=True))


def assert_counted(since: Since, bundles: Path, model: str, rows: Any) -> dict[Series, float]:
    """Check each feature's bins, and the predictions', against the profile's for the same rows."""
    predictor = Predictor.load(bundles / model / "1")
    data = predictor.to_data(rows)
    # The class is what is counted last.
    found = since.settled(len(rows), model=model, feature="predict")
    for place, (name, column) in enumerate(predictor.profile.inputs.items()):
        values = data[:, place] if isinstance(data, np.ndarray) else data[name]
        bins = counted(found, model, name)
        assert bins == expected(Binning.of(column), values), name
        assert sum(bins.values()) == len(rows)
    predicted = predictor.predict(rows)
    bins = counted(found, model, "predict")
    assert bins == expected(Binning.of(predictor.profile.predictions["predict"]), predicted)
    return found


def post_simple(server: Server, rows: Any) -> None:
    for part in np.array_split(rows, 7):
        assert server.post(CANCER, {"features": part.tolist()}).status == 200


def post_rows_one_by_one(server: Server, rows: Any) -> None:
    for row in rows:
        assert server.post(CANCER, {"features": row.tolist(), "probabilities": True}).status == 200


def post_oip_json(server: Server, rows: Any) -> None:
    tensor = {"name": "features", "shape": list(rows.shape), "datatype": "FP64", "data": rows.tolist()}
    assert server.post(INFER, {"inputs": [tensor]}).status == 200


def post_oip_binary(server: Server, rows: Any) -> None:
    with Client(f"127.0.0.1:{server.port}") as client:
        for part in np.array_split(rows, 3):
            tensor = InferInput("features", list(part.shape), "FP64").set_data_from_numpy(part)
            client.infer("breast-cancer", [tensor], outputs=[InferRequestedOutput("predict")])


@pytest.mark.parametrize(
    "post", [post_simple, post_rows_one_by_one, post_oip_json, post_oip_binary], ids=lambda post: post.__name__
)
def test_each_row_is_in_one_bin_of_each_feature(
    post: Callable[[Server, Any], None], since: Since, bundles: Path
) -> None:
    post(since.server, SHIFTED)
    found = assert_counted(since, bundles, "breast-cancer", SHIFTED)
    labels = Predictor.load(bundles / "breast-cancer" / "1").predict(SHIFTED)
    for label in ("0", "1"):
        by_class = {"model": "breast-cancer", "class": label}
        assert total(found, "muelle_predictions_total", **by_class) == (labels == int(label)).sum()
    assert total(found, "muelle_observations_dropped_total") == 0
    # No row is in another model's bins.
    assert total(found, BINS, model="linear") == 0


def test_an_answer_without_labels_counts_no_class(since: Since, bundles: Path) -> None:
    tensor = {"name": "features", "shape": [500, 30], "datatype": "FP64", "data": SHIFTED.tolist()}
    body = {"inputs": [tensor], "outputs": [{"name": "predict_proba"}]}
    assert since.server.post(INFER, body).status == 200
    found = since.settled(500, model="breast-cancer", feature="confidence")
    assert sum(counted(found, "breast-cancer", "mean radius").values()) == 500
    assert total(found, "muelle_predictions_total") == 0
    assert sum(counted(found, "breast-cancer", "predict").values()) == 0


def test_confidence_is_counted_where_probabilities_were_answered(since: Since, bundles: Path) -> None:
    server = since.server
    assert server.post(CANCER, {"features": SHIFTED[:100].tolist()}).status == 200
    assert server.post(CANCER, {"features": SHIFTED[100:].tolist(), "probabilities": True}).status == 200
    since.settled(500, model="breast-cancer", feature="predict")
    found = since.settled(400, model="breast-cancer", feature="confidence")
    predictor = Predictor.load(bundles / "breast-cancer" / "1")
    confidence = predictor.predict_proba(SHIFTED[100:]).max(axis=1)
    wanted = expected(Binning.of(predictor.profile.predictions["confidence"]), confidence)
    assert counted(found, "breast-cancer", "confidence") == wanted
    histogram = {"model": "breast-cancer", "version": "1"}
    assert total(found, "muelle_prediction_confidence_count", **histogram) == 400
    assert total(found, "muelle_prediction_confidence_sum", **histogram) == pytest.approx(confidence.sum())
    bucket = {"le": "0.9", **histogram}
    assert total(found, "muelle_prediction_confidence_bucket", **bucket) == (confidence <= 0.9).sum()


def test_strings_and_gaps_of_a_table_are_counted(since: Since, bundles: Path) -> None:
    rows = TABLE.head(90).copy()
    rows.loc[:9, "city"] = "Lugo"  # never seen
    records = json.loads(rows.to_json(orient="records"))
    for start in range(0, 90, 30):  # some parts have gaps, and others none
        answer = since.server.post("/models/table/predict", {"features": records[start : start + 30]})
        assert answer.status == 200, answer.body
    found = assert_counted(since, bundles, "table", rows)
    cities = counted(found, "table", "city")
    assert cities["other"] == 10
    assert cities["missing"] == rows["city"].isna().sum() > 0
    assert counted(found, "table", "area")["missing"] == rows["area"].isna().sum() > 0


def test_texts_are_counted(since: Since, bundles: Path) -> None:
    rows = ["good day", "never heard of", "bad night", "good day"]
    assert since.server.post("/models/texts/predict", {"features": [[row] for row in rows]}).status == 200
    found = assert_counted(since, bundles, "texts", rows)
    (name,) = Predictor.load(bundles / "texts" / "1").signature.names
    assert counted(found, "texts", name)["other"] == 1


def test_the_reference_is_exported_as_the_profile_has_it(server: Server, bundles: Path) -> None:
    profile = Predictor.load(bundles / "breast-cancer" / "1").profile
    found = scrape(server)
    for name, column in (profile.inputs | profile.predictions).items():
        binning = Binning.of(column)
        labels = {"model": "breast-cancer", "version": "1", "feature": name}
        for label, ratio in zip(binning.labels, binning.reference, strict=True):
            assert total(found, "muelle_feature_reference_ratio", bin=label, **labels) == pytest.approx(ratio)
        assert total(found, "muelle_feature_reference_observations", **labels) == binning.observations
        critical = chi2_quantile(0.999, len(binning.labels) - 1)
        assert total(found, "muelle_feature_psi_critical", **labels) == pytest.approx(critical)
    assert total(found, "muelle_feature_reference_ratio", model="breast-cancer", feature="mean radius") == (
        pytest.approx(1)
    )


def test_hostile_rows_make_no_series_and_refused_ones_count_nothing(since: Since) -> None:
    server = since.server
    row = {"city": "Vigo", "area": 80.0, "rooms": 3, "garden": True}
    refused = {"city": "Vigo", "area": "large", "rooms": 3, "garden": True}
    assert server.post("/models/table/predict", {"features": [row]}).status == 200
    assert server.post("/models/table/predict", {"features": [row, refused]}).status == 400
    assert server.post("/models/nobody-7/predict", {"features": [row]}).status == 404
    before = since.settled(1, model="table", feature="predict", refused=2)
    for start in range(0, 10_000, 500):
        rows = [row | {"city": f'city {number}\n"{{}}'} for number in range(start, start + 500)]
        assert server.post("/models/table/predict", {"features": rows}).status == 200
        headers = {"X-Request-Id": f"id-{start}"}
        body = {"features": [*rows, refused]}
        assert server.post("/models/table/predict", body, headers).status == 400
        assert server.post(f"/models/nobody-{start}/predict", {"features": rows}, headers).status == 404
    after = since.settled(10_001, model="table", feature="predict", refused=2 + 2 * 20)
    assert counted(after, "table", "city")["other"] == 10_000
    assert sum(counted(after, "table", "rooms").values()) == 10_001
    assert total(after, "muelle_predictions_total", model="table") == 10_001
    assert set(after) == set(before)


def test_both_text_formats_carry_them(server: Server) -> None:
    page = server.get("/metrics", {"Accept": "application/openmetrics-text"}).body.decode()
    families = {family.name: family.type for family in parse_openmetrics(page)}
    assert families["muelle_feature_bin"] == families["muelle_predictions"] == "counter"
    assert families["muelle_observations_dropped"] == "counter"
    assert families["muelle_prediction_confidence"] == "histogram"
    names = {name for name, _ in samples(server.get("/metrics").body.decode())}
    assert {BINS, "muelle_feature_reference_ratio", "muelle_feature_psi_critical"} <= names


def test_counts_survive_recycled_and_killed_workers(bundles: Path, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    settings = {"MUELLE_MAX_REQUESTS": "40", "MUELLE_METRICS_DIR": str(folder)}
    with Server(bundles, tmp_path, settings) as server:
        server.wait_ready()
        wait_loads(server, 8)
        since = Since(server)
        old = set(server.workers())
        with Watch(server, folder) as watch:
            for row in SHIFTED[:300]:
                assert server.post(CANCER, {"features": row.tolist()}).status == 200
            wait_workers(server, 2, without=old)
            since.settled(300, model="breast-cancer", feature="predict")
            kill(server.workers()[0])
            wait_workers(server, 2)
            assert server.post(CANCER, {"features": SHIFTED[300:].tolist()}).status == 200
            found = since.settled(500, model="breast-cancer", feature="predict")
        assert watch.falls == []
        assert sum(counted(found, "breast-cancer", "mean radius").values()) == 500


def test_drift_can_be_switched_off(bundles: Path, tmp_path: Path) -> None:
    with Server(bundles, tmp_path, {"MUELLE_DRIFT": "false"}) as server:
        server.wait_ready()
        assert server.post(CANCER, {"features": SHIFTED.tolist()}).status == 200
        names = {name for name, _ in scrape(server)}
    assert "muelle_batch_rows_count" in names
    assert not {name for name in names if "feature" in name or "prediction" in name or "observation" in name}
