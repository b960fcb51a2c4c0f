"""What the command line's tests share: a real repository, and estimators as users bring them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from muelle.cli import main


@pytest.fixture(scope="session")
def muelle() -> Callable[..., Result]:
    """Run ``muelle …`` in this process; what is not an exit on purpose is raised."""

    def run(*arguments: object, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def repository(muelle, tmp_path_factory) -> Path:
    """A repository with the three examples, trained by the command; tests only read it."""
    path = tmp_path_factory.mktemp("repository") / "models"
    assert muelle("train", "all", "--repository", path).exit_code == 0
    return path


class Evil:
    """A pickle that would make a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="session")
def brought(tmp_path_factory) -> Path:
    """A folder of fitted estimators and tables, as users have them."""
    folder = tmp_path_factory.mktemp("brought")
    X, y = load_iris(return_X_y=True, as_frame=True)
    array = RandomForestClassifier(10, random_state=0).fit(X.to_numpy(), y)
    joblib.dump(array, folder / "forest.joblib")
    joblib.dump(array, folder / "compressed.joblib", compress=3)
    named = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, np.array(["a", "b", "c"])[y])
    (folder / "named.pkl").write_bytes(pickle.dumps(named))
    X.assign(target=y).to_csv(folder / "iris.csv", index=False)
    X.assign(target=y).to_csv(folder / "iris-index.csv")
    X.assign(target=y).to_parquet(folder / "iris.parquet")
    X.to_csv(folder / "features.csv", index=False)
    _mixed(folder)
    texts = ["a good day", "a bad day", "good", "bad"] * 5
    joblib.dump(
        make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["+", "-", "+", "-"] * 5),
        folder / "text.joblib",
    )
    pd.DataFrame({"review": texts, "label": ["+", "-", "+", "-"] * 5}).to_csv(folder / "text.csv", index=False)
    joblib.dump(LogisticRegression(), folder / "unfitted.joblib")
    (folder / "dict.pkl").write_bytes(pickle.dumps({"coef": 1}))
    (folder / "words.joblib").write_text("hello there, this is no pickle")
    (folder / "evil.pkl").write_bytes(pickle.dumps(Evil(folder / "marker")))
    return folder


def _mixed(folder: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 80, 200),
            "pay": rng.normal(50, 10, 200).round(3),
            "city": rng.choice(["Vigo", "Lugo", "Ourense"], 200),
            "zip": rng.choice(["01234", "02345"], 200),
            "member": rng.random(200) > 0.5,
        }
    )
    table.loc[::7, "pay"] = np.nan
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = [("numbers", numbers, ["age", "pay", "member"]), ("words", OneHotEncoder(), ["city", "zip"])]
    churned = table["age"] > 40
    fitted = make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(table, churned)
    joblib.dump(fitted, folder / "churn.joblib")
    table.assign(churned=churned).to_csv(folder / "churn.csv", index=False)
    table.to_parquet(folder / "churn.parquet")
