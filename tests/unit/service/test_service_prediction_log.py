"""What a worker logs: whole requests, typed columns, redacted before the disk; drops are counted, nothing blocks."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry
from spooled import row_lines

from muelle.bundle.profile import Profile, build_profile
from muelle.bundle.signature import Feature, Output, Signature
from service import prediction_log
from service.metrics import Metrics
from service.observations import Observation
from service.prediction_lines import ROWS_A_LINE, Layout, label_text
from service.prediction_log import PredictionLog, sampled
from service.prediction_tables import File, convert
from service.protocols.feedback import Label
from service.settings import Settings
from service.spool import SpoolFullError, taken, waiting

MATRIX = Signature(
    "matrix",
    tuple(Feature(name, "float64", nullable=True) for name in ("age", "row", "predict")),
    (Output("predict", "int64", (-1,), (0, 1)), Output("predict_proba", "float64", (-1, 2), (0, 1))),
)
FRAME = Signature(
    "frame",
    (Feature("city", "string", True), Feature("rooms", "int64", True), Feature("new", "bool", True)),
    (Output("predict", "string", (-1,), ("a", "b")),),
)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


def profile() -> Profile:
    """A profile, which the log has no use for."""
    rows = np.zeros((3, 3))
    return build_profile(MATRIX, rows, np.zeros(3, np.int64))


def observation(request_id: str = "id", rows: int = 2, at: float = NOON, *, probabilities: bool = True) -> Observation:
    data = np.arange(rows * 3, dtype=np.float64).reshape(rows, 3)
    answers: dict[str, Any] = {"predict": np.arange(rows) % 2}
    if probabilities:
        answers["predict_proba"] = np.column_stack([np.full(rows, 0.25), np.full(rows, 0.75)])
    return Observation(request_id, at, data, answers, rows, rows * 24)


def converted(lines: list[bytes]) -> tuple[list[File], list[Any]]:
    return convert(io.BytesIO(b"".join(line + b"\n" for line in lines)))


def table(file: File) -> pa.Table:
    return pq.read_table(io.BytesIO(file.data))


def roundtrip(signature: Signature, group: list[Observation], redacted: tuple[str, ...] = ()) -> pa.Table:
    layout = Layout.of(0, "m", "1", signature, redacted)
    files, lost = converted([layout.heading(), *(line.text for line in row_lines(layout, group))])
    assert lost == []
    assert [file.layout for file in files] == [Layout.from_heading(orjson.loads(layout.heading()))]
    return table(files[0])


def test_a_features_name_can_not_hide_one_of_our_columns() -> None:
    found = roundtrip(MATRIX, [observation()])
    assert found.column_names == [
        "request_id", "row", "answered_at", "x_age", "x_row", "x_predict", "predict", "predict_proba", "confidence"
    ]  # fmt: skip
    assert found["row"].to_pylist() == [0, 1]
    assert found["x_row"].to_pylist() == [1.0, 4.0]
    assert found["predict"].to_pylist() == [0, 1]
    assert found["x_predict"].to_pylist() == [2.0, 5.0]


def test_columns_have_the_signatures_types_and_gaps_are_null() -> None:
    data = {
        "city": np.array(["Cádiz", None], object),
        "rooms": np.array([np.nan, 3.0]),
        "new": np.array([None, True], object),
    }
    answers = {"predict": np.array(["a", "b"], object)}
    found = roundtrip(FRAME, [Observation("id", NOON, data, answers, 2, 10)])
    types = {"x_city": pa.string(), "x_rooms": pa.int64(), "x_new": pa.bool_(), "predict": pa.string()}
    assert {name: found.schema.field(name).type for name in types} == types
    assert found.select(list(types)).to_pydict() == {
        "x_city": ["Cádiz", None],
        "x_rooms": [None, 3],
        "x_new": [None, True],
        "predict": ["a", "b"],
    }
    assert found.schema.field("answered_at").type == pa.timestamp("us", tz="UTC")
    assert found["answered_at"].to_pylist()[0] == datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_the_largest_whole_number_beside_a_gap_takes_no_row_with_it() -> None:
    signature = Signature("frame", (Feature("rooms", "int64", True),), (Output("predict", "float64", (-1,)),))
    largest, gap = np.array([2**63 - 1]), np.array([np.nan])
    group = [Observation("id", NOON, {"rooms": x}, {"predict": np.ones(1)}, 1, 10) for x in (largest, gap)]
    assert roundtrip(signature, group)["x_rooms"].to_pylist() == [2**63 - 1, None]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_come_back_to_the_last_bit(dtype: str) -> None:
    signature = Signature("matrix", (Feature("a", dtype, True),), (Output("predict", "float64", (-1, 2)),))
    values = np.random.default_rng(1).normal(size=(500, 1)).astype(dtype) * np.float32(1e-20)
    values[7] = np.nan
    answers = {"predict": np.random.default_rng(2).normal(size=(500, 2)) * 1e300}
    found = roundtrip(signature, [Observation("id", NOON, values, answers, 500, 10)])
    assert found.schema.field("x_a").type == (pa.float32() if dtype == "float32" else pa.float64())
    assert found["x_a"].null_count == 1
    assert np.array_equal(found["x_a"].to_numpy(), values[:, 0], equal_nan=True)
    assert np.array_equal(np.stack(found["predict"].to_numpy()), answers["predict"])


def test_requests_that_were_answered_different_outputs_share_a_table() -> None:
    bare = observation("bare", probabilities=False)
    only = observation("only")._replace(answers={"predict_proba": np.array([[0.5, 0.5], [0.1, 0.9]])})
    found = roundtrip(MATRIX, [bare, observation("both"), only]).to_pylist()
    by_id = {(row["request_id"], row["row"]): row for row in found}
    assert by_id["bare", 1]["predict"] == 1
    assert by_id["bare", 1]["predict_proba"] is by_id["bare", 1]["confidence"] is None
    assert by_id["only", 1]["predict"] is None
    assert by_id["only", 1]["confidence"] == 0.9
    assert by_id["both", 0]["predict_proba"] == [0.25, 0.75]


def test_the_largest_whole_number_and_its_gap_may_be_in_different_lines() -> None:
    signature = Signature("frame", (Feature("rooms", "int64", True),), (Output("predict", "float64", (-1,)),))
    layout = Layout.of(0, "m", "1", signature, ())
    rows = ROWS_A_LINE + 1
    # As the service has such a column: of floats, with one gap at its end.
    rooms = np.full(rows, float(2**63 - 1))
    rooms[-1] = np.nan
    answered = Observation("id", NOON, {"rooms": rooms}, {"predict": np.zeros(rows)}, rows, 10)
    files, lost = converted([layout.heading(), *(line.text for line in row_lines(layout, [answered]))])
    assert lost == []
    assert table(files[0])["x_rooms"].to_pylist() == [2**63 - 1] * ROWS_A_LINE + [None]


def test_lines_are_bounded_and_a_large_request_keeps_its_rows_numbers() -> None:
    layout = Layout.of(0, "m", "1", MATRIX, ())
    group = [observation("small", 3), observation("large", 10_000), observation("last", 5)]
    lines = row_lines(layout, group)
    whole, rest = divmod(10_000, ROWS_A_LINE)
    assert [line.rows for line in lines] == [3, *[ROWS_A_LINE] * whole, rest + 5]
    files, _ = converted([layout.heading(), *(line.text for line in lines)])
    found = table(files[0]).to_pandas().set_index("request_id")
    assert found.loc["large", "row"].tolist() == list(range(10_000))
    assert found.loc["large", "x_age"].tolist() == list(range(0, 30_000, 3))
    assert found.loc["last", "row"].tolist() == list(range(5))


def test_rows_go_to_the_hour_in_which_they_were_answered() -> None:
    layout = Layout.of(0, "m", "1.2", MATRIX, ())
    group = [observation("before", at=NOON - 0.001), observation("after", at=NOON)]
    files, _ = converted([layout.heading(), *(line.text for line in row_lines(layout, group))])
    assert [(file.folder, file.rows) for file in files] == [
        ("model=m/version=1.2/date=2026-11-21/hour=11", 2),
        ("model=m/version=1.2/date=2026-11-21/hour=12", 2),
    ]


def test_the_same_segment_becomes_the_same_bytes() -> None:
    layout = Layout.of(0, "m", "1", MATRIX, ())
    lines = [layout.heading(), *(line.text for line in row_lines(layout, [observation(rows=500)]))]
    assert converted(lines)[0] == converted(lines)[0]


@pytest.mark.parametrize(
    ("redacted", "left"),
    [
        (("age", "row"), ["x_predict", "predict", "predict_proba", "confidence"]),
        (("*",), ["predict", "predict_proba", "confidence"]),
        (("predict_proba",), ["x_age", "x_row", "x_predict", "predict", "confidence"]),
        (("confidence", "predict"), ["x_age", "x_row", "predict_proba"]),
    ],
)
def test_what_is_redacted_is_in_no_line(redacted: tuple[str, ...], left: list[str]) -> None:
    assert roundtrip(MATRIX, [observation()], redacted).column_names[3:] == left


def test_redacted_columns_of_a_table_are_in_no_line() -> None:
    data = {"city": np.array(["secret"], object), "rooms": np.array([4]), "new": np.array([True])}
    layout = Layout.of(0, "m", "1", FRAME, ("city",))
    (line,) = row_lines(layout, [Observation("id", NOON, data, {"predict": np.array(["a"], object)}, 1, 10)])
    assert b"secret" not in line.text
    assert b"city" not in layout.heading()


def test_a_line_that_is_cut_off_is_counted_with_its_rows_and_others_are_read() -> None:
    layout = Layout.of(3, "m", "1", MATRIX, ())
    (line,) = row_lines(layout, [observation(rows=7)])
    torn = io.BytesIO(layout.heading() + b"\n" + line.text + b"\n" + line.text[:-5])
    files, lost = convert(torn)
    assert files[0].rows == 7
    assert [(item.layout.model if item.layout else None, item.rows) for item in lost] == [("m", 7)]
    damaged = io.BytesIO(layout.heading() + b"\n\x00\x00\n{}\n[]\n" + line.text + b"\n")
    files, lost = convert(damaged)
    assert files[0].rows == 7
    assert [(item.layout, item.rows) for item in lost] == [(None, 1)] * 3


def test_labels_have_a_folder_that_readers_of_the_log_pass_over() -> None:
    labels = [
        Label("a", 0, "Cádiz", NOON - 5),
        Label("b", 1, 1, NOON),
        Label("c", 2, 1.5, NOON),
        Label("d", 3, True, 0),
    ]
    files, _ = converted([prediction_log.label_line(labels, NOON)])
    assert [file.folder for file in files] == ["_feedback/date=2026-11-21/hour=12"]
    found = table(files[0])
    assert found["label"].to_pylist() == ["Cádiz", "1", "1.5", "true"]
    assert found["observed_at"].to_pylist()[0] == datetime(2026, 11, 21, 11, 59, 55, tzinfo=UTC)
    assert found["row"].to_pylist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("label", "text"), [(True, "true"), (0, "0"), (-1.5, "-1.5"), ("a b", "a b"), (1e300, "1e+300")]
)
def test_a_label_is_a_text_as_json_writes_it(label: Any, text: str) -> None:
    assert label_text(label) == text


@pytest.mark.parametrize("name", ["id-{}", "{:016x}", "2026-11-21T12:00:00.{}Z", "{}"])
def test_a_sample_has_its_share_of_any_kind_of_id(name: str) -> None:
    ids = [name.format(number) for number in range(20_000)]
    # Five standard deviations.
    assert abs(sum(sampled(item, 0.2) for item in ids) - 4000) < 5 * (20_000 * 0.2 * 0.8) ** 0.5
    assert all(sampled(item, 1.0) for item in ids[:100])
    assert not any(sampled(item, 0.0) for item in ids)


class Bench:
    """A worker's log."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.registry = CollectorRegistry()
        self.spool = folder / "spool"
        chosen = {"prediction_log": str(folder / "log"), "prediction_log_spool": self.spool} | settings
        self.log = PredictionLog(Settings(**chosen), Metrics(self.registry), folder, 0)
        self.model = self.log.of("m", "1", MATRIX, profile())

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"model": "m", "version": "1"} | labels)

    def rows(self) -> int:
        found = 0
        for path in waiting(self.spool):
            with taken(path) as segment:
                assert segment is not None
                found += sum(file.rows for file in convert(segment)[0])
        return found


def test_what_waits_is_written_at_the_end_and_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.log.start()
    bench.model.take([observation(rows=3), observation(rows=4)])
    bench.log.feedback([Label("id", 0, 1, NOON)])
    bench.log.close()
    bench.log.close()
    assert bench.rows() == 8
    assert bench.value("muelle_prediction_log_rows_total") == 7
    assert bench.value("muelle_prediction_log_dropped_total", reason="full") == 0


def test_the_request_path_waits_for_nothing_and_what_is_too_much_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    stuck, go = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        stuck.set()
        go.wait(20)

    monkeypatch.setattr(bench.log.spool, "append", hang)
    monkeypatch.setattr(prediction_log, "MOST_BYTES", 1000)
    bench.log.start()
    bench.model.take([observation()])
    assert stuck.wait(20)
    for _ in range(100):
        bench.model.take([observation(rows=10)])
        bench.log.feedback([Label("id", 0, 1, NOON)])
    full = bench.value("muelle_prediction_log_dropped_total", reason="full")
    assert full is not None
    assert 900 < full < 1000
    unknown = {"model": "unknown", "version": "unknown", "reason": "full"}
    assert bench.registry.get_sample_value("muelle_prediction_log_dropped_total", unknown)
    assert len([record for record in caplog.records if "dropped" in record.message]) == 2
    go.set()
    bench.log.close()


@pytest.mark.parametrize(
    ("error", "reason"), [(SpoolFullError("no room"), "full"), (OSError(5, "broken"), "error"), (ValueError(), "error")]
)
def test_a_spool_that_refuses_is_counted_and_tried_again(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    append: Callable[..., None] = bench.log.spool.append
    left = [error]

    def refuse(*arguments: Any) -> None:
        if left:
            raise left.pop()
        append(*arguments)

    monkeypatch.setattr(bench.log.spool, "append", refuse)
    bench.log.start()
    bench.model.take([observation(rows=3)])
    bench.model.take([observation(rows=4)])
    bench.log.close()
    assert bench.value("muelle_prediction_log_dropped_total", reason=reason) == 3
    assert bench.value("muelle_prediction_log_rows_total") == bench.rows() == 4


def test_a_text_that_json_can_not_hold_takes_no_other_request_with_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    model = bench.log.of("texts", "1", FRAME, profile())

    def of(text: str) -> Observation:
        data = {"city": np.array([text], object), "rooms": np.array([4]), "new": np.array([True])}
        return Observation("id", NOON, data, {"predict": np.array(["a"], object)}, 1, 10)

    bench.log.start()
    model.take([of("Vigo"), of("\ud800"), of("Palma")])
    bench.log.close()
    labels = {"model": "texts", "version": "1"}
    assert bench.registry.get_sample_value("muelle_prediction_log_rows_total", labels) == bench.rows() == 2
    dropped = bench.registry.get_sample_value("muelle_prediction_log_dropped_total", labels | {"reason": "error"})
    assert dropped == 1


def test_rows_and_labels_outside_the_sample_are_neither_written_nor_dropped(tmp_path: Path) -> None:
    bench = Bench(tmp_path, prediction_log_sample=0.0)
    bench.log.start()
    bench.model.take([observation()])
    bench.log.feedback([Label("id", 0, 1, NOON)])
    bench.log.close()
    assert bench.rows() == 0
    assert bench.value("muelle_prediction_log_rows_total") == 0
    assert bench.value("muelle_prediction_log_dropped_total", reason="full") == 0


def test_a_misspelt_column_is_told_since_what_was_meant_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    redacted = ("agee", "age", "city", "*", "confidence")
    bench = Bench(tmp_path, prediction_log_redact=redacted, prediction_log_seconds=0.01)
    bench.log.of("texts", "1", FRAME, profile())
    with caplog.at_level(logging.WARNING):
        bench.log.start()
        bench.model.take([observation()])
        deadline = time.monotonic() + 20
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        bench.log.close()
    assert [record.message for record in caplog.records] == [
        "prediction log: no model has the column agee, to be left out"
    ]
