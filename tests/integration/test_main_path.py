"""Train, bundle, serve, predict: the whole way through the command line, as a user goes it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import joblib
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import Server


def muelle(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "muelle.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


EXAMPLES = {
    "linear": ({"input": [6]}, {"output": [12.0]}),
    "iris": ({"features": [5.1, 3.5, 1.4, 0.2]}, {"prediction": 0}),
    "breast-cancer": ({"features": load_breast_cancer().data[0].tolist()}, {"prediction": 0}),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_goes_all_the_way(name: str, tmp_path: Path) -> None:
    trained = muelle("train", name, "--repository", tmp_path / "models", "--output", "json")
    assert trained.returncode == 0, trained.stderr
    (facts,) = json.loads(trained.stdout)
    assert facts["engines"] == ["onnx", "joblib"]
    assert muelle("verify", tmp_path / "models" / name / "1").returncode == 0

    request, answer = EXAMPLES[name]
    with Server(tmp_path / "models", tmp_path) as server:
        server.wait_ready()
        # One model is served, so /predict alone means it.
        assert server.post("/predict", request).json == answer
        assert server.post(f"/models/{name}/predict", request).json == answer
        checked = muelle("check", server.url, "--output", "json")
        assert checked.returncode == 0, checked.stdout
        checks = {item["request"]: item["status"] for item in json.loads(checked.stdout)["checks"]}
        assert checks["GET /"] == 200
        assert 400 in checks.values()


def test_ones_own_estimator_goes_all_the_way(tmp_path: Path) -> None:
    data = load_breast_cancer(as_frame=True)
    columns = ["mean radius", "mean texture", "mean area"]
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data[columns], data.target.astype(bool))
    joblib.dump(estimator, tmp_path / "fitted.joblib")
    sample = data.data[columns].head(100)
    sample.to_csv(tmp_path / "rows.csv", index=False)

    flags = ("--name", "own", "--repository", tmp_path / "models")
    bundled = muelle("bundle", tmp_path / "fitted.joblib", "--sample", tmp_path / "rows.csv", *flags)
    assert bundled.returncode == 0, bundled.stderr
    expected = estimator.predict(sample).tolist()
    predicted = muelle("predict", tmp_path / "models" / "own" / "1", tmp_path / "rows.csv", "--output", "csv")
    assert predicted.returncode == 0, predicted.stderr
    table = pd.read_csv(io.StringIO(predicted.stdout))
    assert table.iloc[:, -1].tolist() == expected
    with Server(tmp_path / "models", tmp_path) as server:
        server.wait_ready()
        answer = server.post("/predict", {"features": sample.to_dict("records")})
        assert answer.json == {"predictions": expected}


def test_the_demo_shows_the_three_predictions(tmp_path: Path) -> None:
    shown = muelle("demo", "--repository", tmp_path / "models")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert '{"output":[12.0]}' in lines
    assert '{"prediction":0}' in lines
    again = muelle("demo", "--repository", tmp_path / "models")
    assert again.returncode == 0, again.stderr
    assert [path.name for path in (tmp_path / "models" / "iris").iterdir()] == ["1"]
