"""What the bundle's tests share: one tiny model, its bundle, and a manifest with every field set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from muelle.bundle import save
from muelle.bundle.manifest import FileEntry, Manifest, OnnxReport
from muelle.bundle.signature import Feature, Output, Signature


@pytest.fixture(scope="session")
def line() -> tuple[LinearRegression, np.ndarray]:
    """A fitted ``y = 2 x0 − x1 + 0.5`` and its 50 rows."""
    X = np.random.default_rng(0).normal(size=(50, 2)).round(3)
    return LinearRegression().fit(X, X @ [2.0, -1.0] + 0.5), X


@pytest.fixture(scope="session")
def line_bundle(line, tmp_path_factory) -> Path:
    """A bundle of it with both engines. Never write into it: copy it."""
    return save(line[0], line[1], name="line", version="1", repository=tmp_path_factory.mktemp("models"))


@pytest.fixture
def manifest() -> Manifest:
    """A manifest in which nothing is left at its default."""
    signature = Signature(
        layout="frame",
        inputs=(
            Feature("age", "int64", nullable=True),
            Feature("city", "string", categories=("Vigo", "Lugo")),
        ),
        outputs=(
            Output("predict", "string", (-1,), ("no", "yes")),
            Output("predict_proba", "float64", (-1, 2), ("no", "yes")),
        ),
    )
    files = ("MODEL_CARD.md", "golden.json", "model.joblib", "model.onnx", "profile.json")
    return Manifest(
        name="churn",
        version="1.2",
        created="2026-01-02T03:04:05Z",
        estimator="Pipeline(StandardScaler, LogisticRegression)",
        task="classification",
        signature=signature,
        engines=("onnx", "joblib"),
        onnx=OnnxReport(True, "agrees", 20, 1.0, 1e-9, "columns", 21),
        libraries={"python": "3.12.1", "numpy": "2.1.0"},
        files={name: FileEntry("0123456789abcdef" * 4, i) for i, name in enumerate(files)},
        scores={"accuracy": 0.75},
        parameters={"seed": 0, "solver": "lbfgs", "shuffle": True, "C": 0.5},
        git_commit="abc-dirty",
        data_digest="sha256:00",
    )
