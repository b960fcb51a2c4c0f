"""The prediction log of a real server: every row that was flushed is in Parquet once, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from lifecycle import kill, samples, scrape, total, wait_gone, wait_loads
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support import Server
from tritonclient.http import InferenceServerClient as Client
from tritonclient.http import InferInput

from muelle.bundle import save
from muelle.inference import Predictor
from service.spool import held_bytes

CANCER = "/models/breast-cancer/predict"
INFER = "/v2/models/breast-cancer/infer"
ROWS = load_breast_cancer().data
TABLE = pd.DataFrame(
    {
        "city": ["Vigo", "Palma", None, "Cádiz"] * 30,
        "area": [70.5, np.nan, 90.0, 55.0] * 30,
        "rooms": [3, 2, 4, 1] * 30,
        "garden": [True, False, True, False] * 30,
    }
)


@pytest.fixture(scope="module")
def bundles(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, a model of a table with texts and gaps, and one that answers two numbers."""
    folder = tmp_path_factory.mktemp("logged-models")
    for name in ("breast-cancer", "iris", "linear"):
        (folder / name).symlink_to(repository / name)
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), ["city"]),
        (SimpleImputer(), ["area", "rooms"]),
        remainder="passthrough",
    )
    table = make_pipeline(prepare, LogisticRegression(max_iter=2000)).fit(TABLE, ["no", "yes", "yes", "no"] * 30)
    save(table, TABLE, name="table", version="1", repository=folder, onnx=False)
    rows = np.random.default_rng(0).normal(size=(50, 3))
    save(LinearRegression().fit(rows, rows @ rng_matrix()), rows, name="two", version="1", repository=folder)
    return folder


def rng_matrix() -> Any:
    return np.random.default_rng(1).normal(size=(3, 2))


class Logging:
    """A folder for the log and a spool that outlive their servers."""

    def __init__(self, bundles: Path, folder: Path) -> None:
        self.bundles, self.folder = bundles, folder
        self.log, self.spool = folder / "log", folder / "spool"

    def serve(self, *models: str, **settings: str) -> Server:
        """Return a server that logs; without models, of the breast cancer one alone, which is loaded soonest."""
        settings = {"serve": ",".join(models or ("breast-cancer",)), **settings}
        named = {f"MUELLE_{key.upper()}": value for key, value in settings.items()}
        return Server(
            self.bundles,
            self.folder,
            {
                "MUELLE_PREDICTION_LOG": str(self.log),
                "MUELLE_PREDICTION_LOG_SPOOL": str(self.spool),
                "MUELLE_PREDICTION_LOG_SECONDS": "0.5",
                "MUELLE_ACCESS_LOG": "false",
                **named,
            },
        )

    def rows(self, model: str) -> pd.DataFrame:
        files = sorted(self.log.glob(f"model={model}/version=*/date=*/hour=*/*.parquet"))
        if not files:
            return pd.DataFrame({"request_id": [], "row": []})
        found = pd.concat([pq.ParquetFile(path).read().to_pandas() for path in files])
        return found.sort_values(["request_id", "row"], ignore_index=True)

    def labels(self) -> pd.DataFrame:
        files = sorted(self.log.glob("_feedback/date=*/hour=*/*.parquet"))
        return pd.concat([pq.ParquetFile(path).read().to_pandas() for path in files], ignore_index=True)

    def wait_rows(self, server: Server, model: str, count: int) -> pd.DataFrame:
        server.wait_for(lambda: len(self.rows(model)) >= count, f"to {count} logged rows")
        return self.rows(model)


@pytest.fixture
def logging(bundles: Path, tmp_path: Path) -> Logging:
    return Logging(bundles, tmp_path)


def send_ids(server: Server, ids: range, name: str = "id") -> None:
    for number in ids:
        row = ROWS[number % len(ROWS)].tolist()
        assert server.post(CANCER, {"features": row}, {"X-Request-Id": f"{name}-{number}"}).status == 200


def features(found: pd.DataFrame) -> Any:
    return found[[name for name in found.columns if name.startswith("x_")]].to_numpy()


def test_what_was_asked_and_answered_is_in_the_log(logging: Logging) -> None:
    with logging.serve() as server:
        server.wait_ready()
        sent = {"features": ROWS[:20].tolist(), "probabilities": True}
        simple = server.post(CANCER, sent, {"X-Request-Id": "mine"})
        assert simple.status == 200
        found = logging.wait_rows(server, "breast-cancer", 20)
        own = server.post(CANCER, {"features": ROWS[20].tolist()})
        logging.wait_rows(server, "breast-cancer", 21)
        with Client(f"127.0.0.1:{server.port}") as client:
            tensor = InferInput("features", [30, 30], "FP64").set_data_from_numpy(ROWS[100:130])
            client.infer("breast-cancer", [tensor], request_id="binary", headers={"X-Request-Id": "binary"})
        everything = logging.wait_rows(server, "breast-cancer", 51)
        before = time.time()
    predictor = Predictor.load(logging.bundles / "breast-cancer" / "1")
    assert list(found["request_id"].unique()) == ["mine"]
    assert found["row"].tolist() == list(range(20))
    assert np.array_equal(features(found), ROWS[:20])
    assert found.columns[3] == "x_mean radius"
    assert found["predict"].tolist() == predictor.predict(ROWS[:20]).tolist() == simple.json["predictions"]
    probabilities = np.stack(found["predict_proba"].to_list())
    assert np.allclose(probabilities, predictor.predict_proba(ROWS[:20]))
    assert np.array_equal(found["confidence"], probabilities.max(axis=1))
    assert before - 60 < found["answered_at"].iloc[0].timestamp() < before
    assert str(found["answered_at"].dtype) == "datetime64[us, UTC]"
    by_id = everything.set_index("request_id")
    assert np.isnan(by_id.loc[own.headers["x-request-id"], "confidence"])
    assert np.array_equal(features(by_id.loc["binary"]), ROWS[100:130])


def test_large_batches_texts_gaps_and_several_outputs_are_logged(logging: Logging) -> None:
    batch = np.random.default_rng(5).normal(size=(10_000, 3))
    rows = json.loads(TABLE.head(8).to_json(orient="records"))
    with logging.serve("two", "table", "linear") as server:
        server.wait_ready()
        assert server.post("/models/two/predict", {"features": batch.tolist()}).status == 200
        assert server.post("/models/table/predict", {"features": rows, "probabilities": True}).status == 200
        assert server.post("/models/linear/predict", {"input": [6]}).status == 200
        two = logging.wait_rows(server, "two", 10_000)
        table = logging.wait_rows(server, "table", 8)
        linear = logging.wait_rows(server, "linear", 1)
        shipped = total(scrape(server), "muelle_prediction_log_rows_total", model="two")
    assert two["row"].tolist() == list(range(10_000))
    assert two["request_id"].nunique() == 1
    assert np.array_equal(features(two), batch)
    answers = Predictor.load(logging.bundles / "two" / "1").predict(batch)
    assert np.allclose(np.stack(two["predict"].to_list()), answers)
    assert shipped == 10_000
    assert table["x_city"].tolist()[:2] == ["Vigo", "Palma"]
    assert table["x_city"].isna().tolist() == [False, False, True, False] * 2
    assert table["x_area"].isna().tolist() == [False, True, False, False] * 2
    assert table["x_garden"].tolist() == [True, False, True, False] * 2
    assert table["x_rooms"].tolist() == [3, 2, 4, 1] * 2
    assert set(table["predict"]) <= {"yes", "no"}
    assert linear["predict"].tolist() == pytest.approx([12.0])


def test_what_is_to_be_left_out_never_touches_the_disk(logging: Logging) -> None:
    rows = json.loads(TABLE.head(4).to_json(orient="records"))
    # Nothing is shipped before the end, so that the spool can be looked at.
    settings = {"prediction_log_redact": "city, area", "prediction_log_seconds": "3600"}
    with logging.serve("table", **settings) as server:
        server.wait_ready()
        assert server.post("/models/table/predict", {"features": rows}).status == 200
        server.wait_for(lambda: any(logging.spool.glob("*")) and b'"m"' in spooled(logging), "a spooled line")
        text = spooled(logging)
    assert b"Vigo" not in text
    assert b"Palma" not in text
    assert b"70.5" not in text
    found = logging.rows("table")
    assert [name for name in found.columns if name.startswith("x_")] == ["x_rooms", "x_garden"]
    assert len(found) == 4


def spooled(logging: Logging) -> bytes:
    return b"".join(path.read_bytes() for path in logging.spool.iterdir())


def test_nothing_is_logged_unless_asked(bundles: Path, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    with Server(bundles, tmp_path, {"MUELLE_METRICS_DIR": str(folder), "MUELLE_SERVE": "breast-cancer"}) as server:
        server.wait_ready()
        # A worker that starts makes files there, and renames them.
        wait_loads(server, 2)
        send_ids(server, range(20))
        assert not any(path.is_dir() for path in folder.iterdir())
        assert not {name for name, _ in scrape(server) if "prediction_log" in name}
        payload = json.dumps(ROWS[0].tolist())[1:30].encode()
        # Nor does a payload get anywhere else in the metrics folder.
        assert not any(payload in path.read_bytes() for path in folder.iterdir())


def test_a_sample_has_all_rows_of_a_request_or_none(logging: Logging) -> None:
    with logging.serve(prediction_log_sample="0.3") as server:
        server.wait_ready()
        for number in range(200):
            sent = {"features": ROWS[:3].tolist()}
            assert server.post(CANCER, sent, {"X-Request-Id": f"s-{number}"}).status == 200
            label = {"request_id": f"s-{number}", "row": 1, "label": 1}
            assert server.post("/feedback", label).status == 200
    found = logging.rows("breast-cancer")
    counted = found.groupby("request_id").size()
    assert 35 < len(counted) < 85
    assert set(counted) == {3}
    assert set(logging.labels()["request_id"]) == set(counted.index)


def test_labels_are_kept_whoever_they_belong_to(logging: Logging) -> None:
    with logging.serve() as server:
        server.wait_ready()
        send_ids(server, range(2))
        labels = [
            {"request_id": "id-0", "label": 1, "observed_at": "2026-01-02T03:04:05Z"},
            {"request_id": "id-1", "label": "0"},
            {"request_id": "never-heard-of", "row": 7, "label": True},
        ]
        for label in labels:
            assert server.post("/feedback", label).status in (200, 400)
    found = logging.labels().set_index("request_id")
    assert found.loc["id-0", "label"] == "1"
    assert found.loc["id-0", "observed_at"] == pd.Timestamp("2026-01-02T03:04:05Z")
    assert found.loc["never-heard-of", "label"] == "true"
    assert found.loc["never-heard-of", "row"] == 7


def wait_written(server: Server, count: int) -> None:
    """Wait until so many rows are in the spool: flushed."""
    name = "muelle_prediction_log_rows_total"
    server.wait_for(lambda: total(scrape(server), name, model="breast-cancer") >= count, f"{count} rows in the spool")


def test_every_flushed_row_is_there_once_after_all_processes_were_killed(logging: Logging) -> None:
    expected: set[str] = set()
    for attempt in range(3):
        with logging.serve(workers="2") as server:
            server.wait_ready()
            send_ids(server, range(60), name=f"run{attempt}")
            expected |= {f"run{attempt}-{number}" for number in range(60)}
            wait_written(server, 60)
            processes = [server.pid, *server.workers()]
            for pid in processes:
                os.kill(pid, signal.SIGKILL)
            assert server.process is not None
            server.process.wait(10)
            wait_gone(processes)
    # What the last server left; its own requests too.
    with logging.serve() as server:
        server.wait_ready()
        found = logging.wait_rows(server, "breast-cancer", len(expected))
    assert sorted(found["request_id"]) == sorted(expected)
    assert len(logging.rows("breast-cancer")) == len(expected)
    assert not list(logging.spool.iterdir())


def test_a_killed_workers_segment_is_shipped_while_the_server_goes_on(logging: Logging) -> None:
    with logging.serve(prediction_log_seconds="3600") as server:
        server.wait_ready()
        send_ids(server, range(40))
        wait_written(server, 40)
        for pid in worker_pids(server):
            kill(pid)
        found = logging.wait_rows(server, "breast-cancer", 40)
        assert sorted(found["request_id"]) == sorted(f"id-{number}" for number in range(40))
        send_ids(server, range(40, 60))
    # And the rest when it stops.
    assert sorted(logging.rows("breast-cancer")["request_id"]) == sorted(f"id-{number}" for number in range(60))


def worker_pids(server: Server) -> list[int]:
    """Return the workers' process ids, without the companion's."""
    booted = [line["message"] for line in server.log() if line["message"].startswith("Booting worker with pid")]
    known = {int(message.rpartition(" ")[2]) for message in booted}
    return [pid for pid in server.workers() if pid in known]


def shipper_pid(server: Server) -> int:
    """Return the companion's process id; it may just be starting anew."""
    found: set[int] = set()

    def there() -> bool:
        found.clear()
        found.update(set(server.workers()) - set(worker_pids(server)))
        return len(found) == 1

    server.wait_for(there, "a companion")
    return found.pop()


def test_a_shipper_that_is_killed_again_and_again_neither_loses_nor_doubles(logging: Logging) -> None:
    with logging.serve(workers="1", prediction_log_seconds="0.2") as server:
        server.wait_ready()
        send_ids(server, range(5))
        logging.wait_rows(server, "breast-cancer", 5)
        for round_number in range(3):
            send_ids(server, range(5 + round_number * 20, 25 + round_number * 20))
            kill(shipper_pid(server))
        found = logging.wait_rows(server, "breast-cancer", 65)
        assert server.get("/readyz").status == 200
    assert sorted(found["request_id"]) == sorted(f"id-{number}" for number in range(65))


def test_a_full_spool_drops_counts_and_answers_all_the_same(logging: Logging) -> None:
    # A file in the place of the folder: what is shipped has nowhere to go.
    with logging.serve(prediction_log_spool_bytes=str(1024 * 1024), workers="1") as server:
        server.wait_ready()
        logging.log.rmdir()
        logging.log.write_text("in the way")
        for _ in range(20):
            sent = {"features": ROWS[:400].tolist()}
            assert server.post(CANCER, sent).status == 200
        dropped = {"model": "breast-cancer", "reason": "full"}
        server.wait_for(lambda: total(scrape(server), "muelle_prediction_log_dropped_total", **dropped) > 0, "full")
        server.wait_for(lambda: total(scrape(server), "muelle_prediction_log_failures_total") > 0, "failures")
        server.wait_for(
            lambda: (
                total(scrape(server), "muelle_prediction_log_dropped_total", model="breast-cancer")
                + total(scrape(server), "muelle_prediction_log_rows_total", model="breast-cancer")
                == 8000
            ),
            "all rows counted",
        )
        # Segments are renamed meanwhile, which this stands.
        assert 0 < held_bytes(logging.spool) <= 2 * 1024 * 1024
        written = total(scrape(server), "muelle_prediction_log_rows_total", model="breast-cancer")
        warnings = [line for line in server.log() if "dropped" in line["message"]]
        assert len(warnings) == 1
        # The way is free again: what waited arrives.
        logging.log.unlink()
        found = logging.wait_rows(server, "breast-cancer", int(written))
        assert len(found) == written < 8000
        assert server.post(CANCER, {"features": ROWS[0].tolist()}).status == 200
        logging.wait_rows(server, "breast-cancer", int(written) + 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"MUELLE_PREDICTION_LOG": "https://example.test/log"}, "MUELLE_PREDICTION_LOG: expected a folder"),
        ({"MUELLE_PREDICTION_LOG": "/proc/nowhere/log"}, "MUELLE_PREDICTION_LOG: /proc/nowhere/log: can't be made"),
        ({"MUELLE_PREDICTION_LOG_SAMPLE": "2"}, "MUELLE_PREDICTION_LOG_SAMPLE: expected a number from 0 to 1"),
    ],
)
def test_a_log_that_can_not_work_stops_the_start(
    settings: dict[str, str], said: str, bundles: Path, tmp_path: Path
) -> None:
    server = Server(bundles, tmp_path, settings)
    with server:
        assert server.process is not None
        assert server.process.wait(60) == 1
    assert said in server.log_path.read_text()


def test_scrapes_show_the_log(logging: Logging) -> None:
    with logging.serve() as server:
        server.wait_ready()
        send_ids(server, range(10))
        logging.wait_rows(server, "breast-cancer", 10)
        shipped = {"model": "breast-cancer", "version": "1"}
        server.wait_for(
            lambda: total(scrape(server), "muelle_prediction_log_shipped_rows_total", **shipped) == 10, "counted"
        )
        page = samples(server.get("/metrics").body.decode())
    assert total(page, "muelle_prediction_log_dropped_total") == 0
    assert total(page, "muelle_prediction_log_failures_total") == 0
    assert ("muelle_prediction_log_spool_bytes", ()) in page
    assert total(page, "muelle_worker_memory_bytes", slot="log") > 0
