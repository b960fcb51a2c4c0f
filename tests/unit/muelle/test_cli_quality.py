"""``muelle quality`` on a log as the service writes it, with answers of a real model."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from sklearn import metrics
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from spooled import row_lines

from muelle.bundle import save
from muelle.bundle.signature import Signature
from muelle.cli import main
from muelle.inference import Predictor
from muelle.store.tree import FolderTree
from service.observations import Observation
from service.prediction_lines import Layout, label_line
from service.prediction_tables import convert
from service.protocols.feedback import Label

DATA = load_breast_cancer()
FITTING, ASKED, KNOWN, ACTUAL = train_test_split(DATA.data, DATA.target, test_size=0.7, random_state=0)
NAMES = np.array(DATA.target_names)
DAYS = [datetime(2026, 11, day, 12, tzinfo=UTC).timestamp() for day in (19, 20, 21)]


def write(log: Path, name: str, lines: Sequence[bytes]) -> None:
    """Put what a segment of these lines becomes where the service would."""
    files, lost = convert(io.BytesIO(b"".join(line + b"\n" for line in lines)))
    assert lost == []
    for file in files:
        FolderTree(log).put(f"{file.folder}/{name}.parquet", file.data)


def observe(prefix: str, data: Any, answers: dict[str, Any], at: float) -> list[Observation]:
    """Return a request a row."""
    return [
        Observation(
            f"{prefix}-{i}", at, data[i : i + 1], {key: values[i : i + 1] for key, values in answers.items()}, 1, 1
        )
        for i in range(len(data))
    ]


def log_rows(log: Path, signature: Signature, version: str, group: list[Observation], redacted: Sequence[str]) -> None:
    layout = Layout.of(0, "breast-cancer", version, signature, redacted)
    lines = [line.text for line in row_lines(layout, group)]
    write(log, f"{group[0].request_id}-{version}", [layout.heading(), *lines])


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions that predict texts, the first one hardly fitted."""
    folder = tmp_path_factory.mktemp("models")
    for version, rows in (("1", 20), ("2", len(FITTING))):
        chosen = np.concatenate([np.flatnonzero(kind == KNOWN)[: rows // 2] for kind in (0, 1)])
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FITTING[chosen], NAMES[KNOWN[chosen]])
        save(
            model,
            FITTING,
            name="breast-cancer",
            version=version,
            repository=folder,
            onnx=False,
            scores={"accuracy": 0.9, "roc_auc": 0.99},
        )
    return folder


@pytest.fixture(scope="module")
def log(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of both versions; all but the last tenth of each day has a label, an hour later."""
    folder = tmp_path_factory.mktemp("log")
    for version in ("1", "2"):
        predictor = Predictor.load(bundles / "breast-cancer" / version)
        for day, part in zip(DAYS, np.array_split(np.arange(len(ASKED)), 3), strict=True):
            answers = {
                "predict": predictor.predict(ASKED[part]),
                "predict_proba": predictor.predict_proba(ASKED[part]),
            }
            group = observe(f"{day:.0f}", ASKED[part], answers, day)
            log_rows(folder, predictor.signature, version, group, ())
            if version == "1":
                known = part[: -len(part) // 10]
                labels = [
                    Label(f"{day:.0f}-{i}", 0, str(NAMES[ACTUAL[row]]), day + 3600) for i, row in enumerate(known)
                ]
                write(folder, f"labels-{day:.0f}", [label_line(labels, day + 4000)])
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["quality", *map(str, arguments)], env={"MUELLE_PREDICTION_LOG": None})


def rows_of(*arguments: object) -> list[dict[str, Any]]:
    result = run(*arguments, "--output", "json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    return found


def test_no_thread_of_arrow_holds_a_file_of_pythons(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that did so when the interpreter ended would abort the command; see the same test of other tables."""
    readers: set[int] = set()

    class Watched(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            readers.add(threading.get_ident())
            return super().readinto(buffer)

    monkeypatch.setattr(FolderTree, "open", lambda _, path, size: io.BufferedReader(Watched(log / path)))
    assert len(rows_of("--log", log)) == 6
    assert readers == {threading.get_ident()}


def test_scores_by_version_and_day_are_scikit_learns(log: Path, bundles: Path) -> None:
    rows = rows_of("--log", log)
    assert [(row["version"], row["period"]) for row in rows] == [
        (version, f"2026-11-{day}") for version in ("1", "2") for day in (19, 20, 21)
    ]
    for row, part in zip(rows, [*np.array_split(np.arange(len(ASKED)), 3)] * 2, strict=True):
        predictor = Predictor.load(bundles / "breast-cancer" / row["version"])
        known = part[: -len(part) // 10]
        actual, predicted = NAMES[ACTUAL[known]], predictor.predict(ASKED[known])
        assert (row["predictions"], row["labelled"]) == (len(part), len(known))
        assert row["coverage"] == pytest.approx(len(known) / len(part))
        assert row["lag_seconds"] == 3600
        values = {name: score["value"] for name, score in row["scores"].items()}
        assert values == pytest.approx(
            {
                "accuracy": metrics.accuracy_score(actual, predicted),
                "balanced_accuracy": metrics.balanced_accuracy_score(actual, predicted),
                "macro_f1": metrics.f1_score(actual, predicted, average="macro"),
                "log_loss": metrics.log_loss(actual, predictor.predict_proba(ASKED[known])),
            }
        )
        assert all(score["low"] <= score["value"] <= score["high"] for score in row["scores"].values())


def test_a_version_of_chosen_days_is_one_line(log: Path) -> None:
    chosen = ["--log", log, "--model", "breast-cancer", "--version", "2", "--by", "version"]
    (row,) = rows_of(*chosen)
    assert row["predictions"] == len(ASKED)
    (some,) = rows_of(*chosen, "--since", "2026-11-20", "--until", "2026-11-20")
    assert some["predictions"] == len(np.array_split(np.arange(len(ASKED)), 3)[1])
    result = run(*chosen, "--since", "2026-12-01")
    assert result.exit_code == 1
    assert "no predictions of breast-cancer version 2 since 2026-12-01" in result.output


def test_the_table_shows_intervals_and_the_bundles_own_scores(log: Path, bundles: Path) -> None:
    result = run("--log", log, "--by", "version", "--repository", bundles, "--bundle", "breast-cancer@2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].strip() == "breast-cancer"
    header = next(line for line in lines if "median lag" in line)
    for title in ("accuracy", "balanced accuracy", "macro F1", "log loss", "accuracy in bundle"):
        assert title in header
    second = next(line for line in lines if line.split()[:1] == ["2"])
    assert "1.0 h" in second
    assert "[0." in second
    assert second.split()[-1] == "0.9"
    # roc_auc is not what the log is scored with.
    assert "roc_auc" not in result.stdout


def test_labels_from_elsewhere_count_with_those_of_the_log(log: Path, tmp_path: Path) -> None:
    size = len(np.array_split(np.arange(len(ASKED)), 3)[0])
    ids = [f"{DAYS[0]:.0f}-{i}" for i in range(size)]
    frame = pd.DataFrame({"request_id": ids, "label": "neither", "observed_at": "2026-11-29T00:00:00+01:00"})
    frame.to_csv(tmp_path / "labels.csv", index=False)
    arguments = ["--log", log, "--version", "2", "--until", "2026-11-19"]
    (row,) = rows_of(*arguments, "--labels", tmp_path / "labels.csv")
    # Observed later than those of the log, they win.
    assert row["labelled"] == size
    assert row["scores"]["accuracy"]["value"] == 0
    # An empty cell is row 0.
    frame.assign(row=["", *["0"] * (size - 1)]).to_csv(tmp_path / "labels.csv", index=False)
    (row,) = rows_of(*arguments, "--labels", tmp_path / "labels.csv")
    assert row["scores"]["accuracy"]["value"] == 0
    frame.assign(row=0, observed_at=pd.Timestamp("2020-01-01", tz="UTC")).to_parquet(tmp_path / "labels.parquet")
    (row,) = rows_of(*arguments, "--labels", tmp_path / "labels.parquet")
    assert row["labelled"] == size
    assert row["scores"]["accuracy"]["value"] > 0.5


@pytest.fixture(scope="module")
def couriers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 answers of a model with the classes None and PVD, of which 90 are None; no labels."""
    folder = tmp_path_factory.mktemp("couriers")
    wanted = np.array([["None", "PVD"][i >= 90] for i in range(100)])
    rows = (wanted == "PVD").astype(float).reshape(-1, 1)
    model = LogisticRegression(C=1e6).fit(rows, wanted)
    save(model, rows, name="couriers", version="1", repository=folder / "m", onnx=False)
    predictor = Predictor.load(folder / "m" / "couriers" / "1")
    layout = Layout.of(0, "couriers", "1", predictor.signature, ())
    group = observe("id", rows, {"predict": predictor.predict(rows)}, DAYS[0])
    write(folder / "log", "answers", [layout.heading(), *(line.text for line in row_lines(layout, group))])
    return folder / "log"


def test_labels_that_look_like_missing_values_are_labels(couriers: Path, tmp_path: Path) -> None:
    labels = pd.DataFrame(
        {"request_id": [f"id-{i}" for i in range(100)], "label": ["None"] * 89 + ["PVD"] * 10 + ["None"]}
    )
    labels.to_csv(tmp_path / "labels.csv", index=False)
    (row,) = rows_of("--log", couriers, "--labels", tmp_path / "labels.csv")
    assert (row["predictions"], row["labelled"]) == (100, 100)
    assert row["scores"]["accuracy"]["value"] == pytest.approx(0.98)
    # An empty cell is no label.
    labels.loc[:9, "label"] = None
    labels.to_csv(tmp_path / "labels.csv", index=False)
    (row,) = rows_of("--log", couriers, "--labels", tmp_path / "labels.csv")
    assert row["labelled"] == 90


def test_a_label_of_a_file_without_times_counts_instead_of_one_from_feedback(couriers: Path, tmp_path: Path) -> None:
    log = shutil.copytree(couriers, tmp_path / "log")
    write(log, "labels", [label_line([Label(f"id-{i}", 0, "PVD", DAYS[2]) for i in range(90)], DAYS[2])])
    (row,) = rows_of("--log", log)
    assert row["scores"]["accuracy"]["value"] == 0
    labels = pd.DataFrame({"request_id": [f"id-{i}" for i in range(90)], "label": "None"})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    (row,) = rows_of("--log", log, "--labels", tmp_path / "labels.csv")
    assert (row["labelled"], row["scores"]["accuracy"]["value"]) == (90, 1)
    # An empty time is none; one that is older than the log's is.
    labels.assign(observed_at=["", *["2026-11-01"] * 89]).to_csv(tmp_path / "labels.csv", index=False)
    (row,) = rows_of("--log", log, "--labels", tmp_path / "labels.csv")
    assert row["scores"]["accuracy"]["value"] == pytest.approx(1 / 90)


@pytest.mark.parametrize("asked", [4, 3])
def test_large_integers_are_different_classes(tmp_path: Path, asked: int) -> None:
    """The last row's prediction may not have been asked for: it is null in the log."""
    classes = [2**53, 2**53 + 1]
    rows = np.array([[0.0], [1.0]] * 2)
    save(
        LogisticRegression(C=1e6).fit(rows, np.array(classes * 2)),
        rows,
        name="large",
        version="1",
        repository=tmp_path / "m",
        onnx=False,
    )
    predictor = Predictor.load(tmp_path / "m" / "large" / "1")
    layout = Layout.of(0, "large", "1", predictor.signature, ())
    group = observe("id", rows[:asked], {"predict": predictor.predict(rows[:asked])}, DAYS[0])
    if asked < 4:
        group.append(Observation("id-3", DAYS[0], rows[3:], {"predict_proba": np.array([[0.0, 1.0]])}, 1, 1))
    write(tmp_path / "log", "answers", [layout.heading(), *(line.text for line in row_lines(layout, group))])
    labels = [Label(f"id-{i}", 0, classes[i % 2], DAYS[0]) for i in range(4)]
    write(tmp_path / "log", "labels", [label_line(labels, DAYS[0])])
    (row,) = rows_of("--log", tmp_path / "log")
    assert (row["predictions"], row["labelled"]) == (4, asked)
    assert row["scores"]["accuracy"]["value"] == 1
    assert row["scores"]["balanced_accuracy"]["value"] == 1
    assert row["scores"]["balanced_accuracy"]["rows"] == asked
    wrong = [Label(f"id-{i}", 0, classes[1 - i % 2], DAYS[1]) for i in range(4)]
    write(tmp_path / "log", "wrong", [label_line(wrong, DAYS[1])])
    (row,) = rows_of("--log", tmp_path / "log")
    assert row["scores"]["accuracy"]["value"] == 0


def test_labels_with_a_field_too_many_are_refused(couriers: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("request_id,label\nid-0,None,x\nid-1,PVD,x\n")
    result = run("--log", couriers, "--labels", tmp_path / "labels.csv")
    assert result.exit_code == 1
    assert f"Error: {tmp_path}/labels.csv: rows have more fields than the header" in result.stderr


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": ["a"], "label": ["b"]}, "expected the columns request_id and label, got id, label"),
        ({"request_id": ["a"], "label": ["b"], "observed_at": ["soon"]}, "observed_at: expected times such as"),
        ({"request_id": ["a"], "label": ["b"], "row": ["x"]}, "column 'row' can't be read as int64"),
    ],
)
def test_a_bad_file_of_labels_is_an_error(columns: dict[str, list[str]], said: str, log: Path, tmp_path: Path) -> None:
    pd.DataFrame(columns).to_csv(tmp_path / "labels.csv", index=False)
    result = run("--log", log, "--labels", tmp_path / "labels.csv")
    assert result.exit_code == 1
    assert said in result.output


def test_the_page_has_a_plot_of_each_score_and_nothing_from_outside(log: Path, bundles: Path, tmp_path: Path) -> None:
    page = tmp_path / "quality.html"
    result = run("--log", log, "--html", page, "--repository", bundles, "--bundle", "breast-cancer@2")
    assert result.exit_code == 0, result.output
    text = page.read_text()
    HTMLParser().feed(text)
    assert text.count("<svg") == 4
    assert text.count("<circle") == 4 * 6
    assert "in its bundle: 0.9" in text
    assert "http" not in text
    assert "NaN" not in text
    assert "nan" not in text


def test_numbers_have_errors_and_several_a_row_have_counts(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(300, 3))
    wanted = rows @ [1.0, 2.0, 3.0] + draw.normal(size=300)
    for name, target in (("one", wanted), ("two", np.column_stack([wanted, wanted]))):
        save(LinearRegression().fit(rows, target), rows, name=name, version="1", repository=tmp_path / "m", onnx=False)
        predictor = Predictor.load(tmp_path / "m" / name / "1")
        layout = Layout.of(0, name, "1", predictor.signature, ())
        group = observe("id", rows, {"predict": predictor.predict(rows)}, DAYS[0])
        lines = [line.text for line in row_lines(layout, group)]
        write(tmp_path / "log", name, [layout.heading(), *lines])
    labels = [Label(f"id-{i}", 0, float(value), DAYS[0] + 5) for i, value in enumerate(wanted)]
    write(tmp_path / "log", "labels", [label_line(labels, DAYS[0] + 5)])
    one, two = rows_of("--log", tmp_path / "log")
    predicted = Predictor.load(tmp_path / "m" / "one" / "1").predict(rows)
    assert {name: score["value"] for name, score in one["scores"].items()} == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(wanted, predicted),
            "rmse": metrics.root_mean_squared_error(wanted, predicted),
            "r2": metrics.r2_score(wanted, predicted),
        }
    )
    assert (two["labelled"], two["scores"]) == (300, {})
    result = run("--log", tmp_path / "log", "--html", tmp_path / "q.html")
    assert "no scores where the log has no predictions" in result.output


def test_predictions_that_were_left_out_are_counted_all_the_same(bundles: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(bundles / "breast-cancer" / "2")
    answers = {"predict": predictor.predict(ASKED[:5])}
    redacted = ("predict", "predict_proba", "confidence", "*")
    log_rows(tmp_path, predictor.signature, "2", observe("id", ASKED[:5], answers, DAYS[0]), redacted)
    (row,) = rows_of("--log", tmp_path)
    assert (row["predictions"], row["labelled"], row["scores"]) == (5, 0, {})
    assert "no labels belong to these predictions" in run("--log", tmp_path).output


def test_repeated_ids_and_strange_labels_are_told(bundles: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(bundles / "breast-cancer" / "2")
    group = observe("id", ASKED[:5], {"predict": predictor.predict(ASKED[:5])}, DAYS[0])
    log_rows(tmp_path, predictor.signature, "2", group, ())
    log_rows(tmp_path, predictor.signature, "2", [group[1], group[0]], ())
    result = run("--log", tmp_path)
    assert "2 rows left out" in result.output


def test_what_is_no_log_is_an_error(tmp_path: Path) -> None:
    result = run("--log", tmp_path)
    assert result.exit_code == 1
    assert "is it a prediction log?" in result.output
    assert run("--log", tmp_path / "nowhere").exit_code == 1
    assert run("--log", "ftp://host/log").exit_code == 1
    assert run().exit_code == 2
    folder = tmp_path / "model=m" / "version=1" / "date=2026-11-21" / "hour=03"
    folder.mkdir(parents=True)
    (folder / "x.parquet").write_bytes(b"not Parquet")
    result = run("--log", tmp_path)
    assert result.exit_code == 1
    assert "hour=03/x.parquet: can't be read as a file of the log" in result.output
    pd.DataFrame({"a": [1]}).to_parquet(folder / "x.parquet")
    assert "expected a log of format 1, got None" in run("--log", tmp_path).output


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.mark.parametrize("kind", ["model=couriers", "_feedback"])
def test_a_damaged_page_is_an_error_that_names_the_file(couriers: Path, tmp_path: Path, kind: str) -> None:
    log = shutil.copytree(couriers, tmp_path / "log")
    write(log, "labels", [label_line([Label(f"id-{i}", 0, "None", DAYS[0]) for i in range(100)], DAYS[0])])
    (file,) = (log / kind).rglob("*.parquet")
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(file.read_bytes())
    for i in range(start + column.total_compressed_size // 2, start + column.total_compressed_size):
        data[i] ^= 0xFF
    file.write_bytes(data)
    assert f"Error: {file.relative_to(log)}: can't be read as a file of the log: " in refused("--log", log)


NOW = pd.Timestamp("2026-11-21", tz="UTC")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"row": None, "observed_at": None}, 'Field "row" does not exist'),
        ({"label": None}, 'Field "label" does not exist'),
        ({"label": ["a", None]}, "label: expected a value in each row, got null"),
        ({"row": [0, np.nan]}, "row: expected a value in each row, got null"),
        ({"row": ["x", "y"]}, "as a scalar of type int64"),
        ({"label": [["a"], ["b"]]}, "list"),
        ({"observed_at": ["soon", "later"]}, "as a scalar of type timestamp"),
    ],
)
def test_somebody_elses_file_of_labels_is_an_error_that_names_it(
    couriers: Path, tmp_path: Path, changed: dict[str, list[Any] | None], said: str
) -> None:
    log = shutil.copytree(couriers, tmp_path / "log")
    file = log / "_feedback" / "date=2026-11-21" / "x.parquet"
    file.parent.mkdir(parents=True)
    ours = {"request_id": ["id-0", "id-1"], "label": ["a", "b"], "row": [0, 0], "observed_at": [NOW, NOW]}
    columns = {name: values for name, values in (ours | changed).items() if values is not None}
    pd.DataFrame(columns).to_parquet(file)
    error = refused("--log", log)
    assert "Error: _feedback/date=2026-11-21/x.parquet: can't be read as a file of the log: " in error
    assert said in error


def test_labels_of_another_type_are_taken_as_texts(couriers: Path, tmp_path: Path) -> None:
    log = shutil.copytree(couriers, tmp_path / "log")
    file = log / "_feedback" / "date=2026-11-21" / "x.parquet"
    file.parent.mkdir(parents=True)
    pd.DataFrame({"request_id": ["id-0"], "label": [7], "row": [0], "observed_at": [NOW]}).to_parquet(file)
    (row,) = rows_of("--log", log)
    assert (row["labelled"], row["scores"]["accuracy"]["value"]) == (1, 0)
