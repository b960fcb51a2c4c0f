"""From a fitted estimator to a bundle on disk: what is written, what is refused, and writers that race."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingRegressor, IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from muelle.bundle import open_bundle, save
from muelle.bundle.writer import git_commit, next_version
from muelle.errors import BundleExistsError, EngineError, EstimatorError, UnsafePickleError

ROOT = Path(__file__).parents[4]


class Homemade:
    """An estimator of nobody's library."""

    def predict(self, X):
        return np.asarray(X)[:, 0] * 2


class TestWhatIsWritten:
    def test_everything_that_was_said(self, line, tmp_path):
        estimator, X = line
        path = save(
            estimator,
            X,
            name="line",
            version="2026.1-rc_1",
            repository=str(tmp_path),
            scores={"r2": np.float32(0.5), "rows": 3},
            parameters={"seed": np.int64(7), "C": np.float64(0.5), "solver": np.str_("x"), "on": np.True_},
            data_digest="sha256:00",
            description="A line.",
        )
        assert path == tmp_path / "line" / "2026.1-rc_1"
        manifest = open_bundle(path).manifest
        assert (manifest.name, manifest.version) == ("line", "2026.1-rc_1")
        assert (manifest.estimator, manifest.task) == ("LinearRegression", "regression")
        assert manifest.scores == {"r2": 0.5, "rows": 3.0}
        assert manifest.parameters == {"seed": 7, "C": 0.5, "solver": "x", "on": True}
        assert manifest.data_digest == "sha256:00"
        assert manifest.libraries["numpy"] == np.__version__
        age = datetime.now(UTC) - datetime.strptime(manifest.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert timedelta(seconds=-1) <= age < timedelta(hours=1)
        assert "\nA line.\n" in (path / "MODEL_CARD.md").read_text()
        assert "# line 2026.1-rc_1" in (path / "MODEL_CARD.md").read_text()
        assert sorted(os.listdir(path)) == [
            "MODEL_CARD.md", "golden.json", "manifest.json", "model.joblib", "model.onnx", "profile.json",
        ]  # fmt: skip

    @pytest.mark.parametrize(("estimator", "described", "task"), [
        (make_pipeline(StandardScaler(), LogisticRegression()), "Pipeline(StandardScaler, LogisticRegression)",
         "classification"),
        (make_pipeline(make_pipeline(StandardScaler()), LinearRegression()),
         "Pipeline(Pipeline(StandardScaler), LinearRegression)", "regression"),
        (IsolationForest(n_estimators=3, random_state=0), "IsolationForest", "outlier-detection"),
        (KMeans(2, n_init=1, random_state=0), "KMeans", "clustering"),
    ])  # fmt: skip
    def test_what_it_is(self, line, tmp_path, estimator, described, task):
        X = line[1]
        path = save(estimator.fit(X, X[:, 0] > 0), X, name="m", repository=tmp_path, onnx=False)
        manifest = open_bundle(path).manifest
        assert (manifest.estimator, manifest.task) == (described, task)
        assert manifest.engines == ("joblib",)
        assert manifest.onnx.reason == "not asked for"

    def test_held_out_rows_are_what_is_compared_and_kept(self, line, tmp_path):
        estimator, X = line
        bundle = open_bundle(save(estimator, X[:40], name="m", repository=tmp_path, X_holdout=X[40:]))
        assert bundle.manifest.onnx.rows == 10
        assert bundle.golden.inputs == X[40:].tolist()
        assert bundle.profile.rows == 40

    def test_without_a_graph_it_is_served_by_the_estimator(self, line, tmp_path):
        X = line[1]
        estimator = make_pipeline(FunctionTransformer(np.cosh), LinearRegression()).fit(X, X[:, 0])
        bundle = open_bundle(save(estimator, X, name="m", repository=tmp_path))
        assert bundle.manifest.engines == ("joblib",)
        assert "can't be converted" in bundle.manifest.onnx.reason
        assert "model.onnx" not in bundle.manifest.files

    def test_infinite_values_in_the_sample(self, line, tmp_path):
        X = line[1].copy()
        X[0, 0] = np.inf
        estimator = HistGradientBoostingRegressor(max_iter=2).fit(X, line[1][:, 0])
        bundle = open_bundle(save(estimator, X, name="m", repository=tmp_path, onnx=False))
        assert bundle.golden.inputs[0] == X[1].tolist()
        assert sum(bundle.profile.inputs["x0"].counts) == 50

    def test_an_estimator_of_ones_own(self, line, tmp_path):
        with pytest.raises(UnsafePickleError, match="Homemade"):
            save(Homemade(), line[1], name="m", repository=tmp_path)
        assert list(tmp_path.rglob("*.json")) == []
        path = save(Homemade(), line[1], name="m", repository=tmp_path, allowed_modules=(Homemade.__module__,))
        assert open_bundle(path).manifest.task == "other"


class TestRefused:
    @pytest.fixture(autouse=True)
    def nothing_is_written(self, tmp_path):
        yield
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a" * 64, "a b", None])
    def test_an_unsafe_name(self, line, tmp_path, name):
        with pytest.raises(EstimatorError, match=r"^name: expected 1 to 63 letters"):
            save(*line, name=name, repository=tmp_path)

    @pytest.mark.parametrize("version", ["", "..", "1/2", ".tmp-1", "v" * 64, 1])
    def test_an_unsafe_version(self, line, tmp_path, version):
        with pytest.raises(EstimatorError, match=r"^version: expected 1 to 63 letters"):
            save(*line, name="m", version=version, repository=tmp_path)

    @pytest.mark.parametrize(("options", "message"), [
        ({"scores": {"r2": float("nan")}}, "scores: r2: expected a finite number, got nan"),
        ({"scores": {"r2": "good"}}, "scores: r2: expected a finite number, got 'good'"),
        ({"scores": {"r2": None}}, "scores: r2: expected a finite number"),
        ({"parameters": {"max_depth": None}}, "parameters: max_depth: expected a string, finite number or boolean"),
        ({"parameters": {"C": float("inf")}}, "parameters: C: expected a string, finite number or boolean"),
        ({"parameters": {"layers": [1, 2]}}, "parameters: layers: expected a string, finite number or boolean"),
        ({"data_digest": ""}, "no reader would take this manifest: data_digest"),
        ({"file_format": "pickle"}, "file_format: expected joblib or skops, got 'pickle'"),
        ({"file_format": "onnx"}, "file_format: expected joblib or skops, got 'onnx'"),
        ({"dtypes": {"x9": "float64"}}, "dtypes: the sample has no column x9"),
        ({"dtypes": {"x0": "double"}}, "dtypes: expected float64, float32, int64, bool, string, got double"),
        ({"X_holdout": np.zeros((3, 3))}, "X_holdout: expected the sample's columns"),
        ({"X_holdout": np.zeros((0, 2))}, "the sample has no rows"),
    ])  # fmt: skip
    def test_an_option_that_can_not_be(self, line, tmp_path, options, message):
        with pytest.raises(EstimatorError) as caught:
            save(*line, name="m", repository=tmp_path, onnx=False, **options)
        assert str(caught.value).startswith(message)

    @pytest.mark.parametrize("columns", [["a", "c"], ["b", "a"]])
    def test_held_out_columns_of_other_names_or_another_order(self, line, tmp_path, columns):
        frame = pd.DataFrame(line[1], columns=["a", "b"])
        with pytest.raises(EstimatorError, match=r"X_holdout: expected the sample's columns \['a', 'b'\]"):
            save(line[0], frame, name="m", repository=tmp_path, X_holdout=frame.set_axis(columns, axis=1), onnx=False)

    def test_one_that_is_not_fitted(self, line, tmp_path):
        with pytest.raises(EstimatorError, match=r"LinearRegression\.predict fails on the sample: .*not fitted"):
            save(LinearRegression(), line[1], name="m", repository=tmp_path)

    def test_one_without_predict(self, line, tmp_path):
        with pytest.raises(EstimatorError, match="expected a fitted estimator with predict, got StandardScaler"):
            save(StandardScaler().fit(line[1]), line[1], name="m", repository=tmp_path)

    def test_one_that_can_not_be_pickled(self, line, tmp_path):
        estimator = make_pipeline(FunctionTransformer(lambda X: X), LinearRegression()).fit(line[1], line[1][:, 0])
        with pytest.raises(EstimatorError, match="Pipeline can't be pickled: "):
            save(estimator, line[1], name="m", repository=tmp_path, onnx=False)

    def test_one_that_skops_can_not_write(self, line, tmp_path):
        estimator = LinearRegression().fit(line[1], line[1][:, 0])
        estimator.callback = (row for row in ())
        with pytest.raises(EngineError, match="skops can't write LinearRegression"):
            save(estimator, line[1], name="m", repository=tmp_path, file_format="skops", onnx=False)


class TestVersions:
    def test_whole_numbers_from_one(self, line, tmp_path):
        made = [save(*line, name="m", repository=tmp_path, onnx=False).name for _ in range(3)]
        assert made == ["1", "2", "3"]
        assert [open_bundle(tmp_path / "m" / v).manifest.version for v in made] == made

    def test_after_the_largest_number_whatever_else_there_is(self, tmp_path):
        for name in ("2", "10", "9.9", "beta", "2026-01-01", ".tmp-99-aa", "٣"):
            (tmp_path / name).mkdir()
        assert next_version(tmp_path) == "11"
        assert next_version(tmp_path / "nowhere") == "1"

    def test_a_version_is_never_overwritten(self, line, tmp_path):
        path = save(*line, name="m", version="1", repository=tmp_path, onnx=False, description="first")
        before = {file.name: file.read_bytes() for file in path.iterdir()}
        with pytest.raises(BundleExistsError, match="a version is never overwritten"):
            save(*line, name="m", version="1", repository=tmp_path, onnx=False, description="second")
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before
        assert os.listdir(tmp_path / "m") == ["1"]

    def test_a_version_that_is_always_taken_ends(self, line, tmp_path, monkeypatch):
        save(*line, name="m", version="1", repository=tmp_path, onnx=False)
        monkeypatch.setattr("muelle.bundle.writer.next_version", lambda folder: "1")
        with pytest.raises(BundleExistsError, match="other writers took each of 20 versions"):
            save(*line, name="m", repository=tmp_path, onnx=False)

    def test_processes_that_save_at_once_get_different_versions(self, line, tmp_path):
        joblib.dump(line, tmp_path / "line.joblib")
        script = """
import sys, time, joblib
from pathlib import Path
from muelle.bundle import save
folder = Path(sys.argv[1])
estimator, X = joblib.load(folder / "line.joblib")
print("ready", flush=True)
while not (folder / "start").exists():
    time.sleep(0.001)
for _ in range(5):
    print(save(estimator, X, name="m", repository=folder / "models", onnx=False).name)
"""
        command = [sys.executable, "-c", script, str(tmp_path)]
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
        try:
            for writer in writers:
                assert writer.stdout.readline() == "ready\n"
            (tmp_path / "start").touch()
            answers = [writer.communicate(timeout=60)[0].split() for writer in writers]
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
                writer.stdout.close()
        assert sorted(int(version) for answer in answers for version in answer) == list(range(1, 16))
        assert sorted(os.listdir(tmp_path / "models" / "m"), key=int) == [str(n) for n in range(1, 16)]
        for version in range(1, 16):
            assert open_bundle(tmp_path / "models" / "m" / str(version)).manifest.version == str(version)


class TestGitCommit:
    @pytest.fixture
    def checkout(self, tmp_path, monkeypatch) -> Path:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_outside_a_checkout(self, checkout):
        assert git_commit() is None

    def test_without_git(self, checkout, monkeypatch):
        monkeypatch.setenv("PATH", str(checkout))
        assert git_commit() is None

    @pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
    def test_the_commit_and_whether_files_have_changed(self, checkout):
        (checkout / "train.py").write_text("1")
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "x"]):
            subprocess.run(["git", *command], check=True, timeout=30)
        commit = git_commit()
        assert re.fullmatch(r"[0-9a-f]{40}", commit)
        (checkout / "notes.txt").write_text("untracked files are not the code")
        assert git_commit() == commit
        (checkout / "train.py").write_text("2")
        assert git_commit() == f"{commit}-dirty"


def test_the_files_are_json_that_any_parser_reads(line_bundle):
    for name in ("manifest.json", "profile.json", "golden.json"):
        json.loads((line_bundle / name).read_text(encoding="utf-8"), parse_constant=pytest.fail)
