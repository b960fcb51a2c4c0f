"""Trains the models and writes what the run needs: ``python -m benchmarks.prepare FOLDER``, a process of its own.

The run itself loads neither numpy nor scikit-learn: their pages would be shared with the servers, and the
servers' proportional set size would look smaller than it is.

FOLDER gets ``repository/`` (the bundles), ``NAME.joblib`` (the estimator as the naive server loads it), and
``NAME.json``: rows of the data set and the estimator's own answers to them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris

from benchmarks.servers import MUELLE, clean_environment

#: The mission's batch: the breast-cancer set has 569 rows, so they come again.
ROWS = 1_000


def main(folder: Path) -> None:
    """Fill the folder."""
    repository = folder / "repository"
    subprocess.run(
        [*MUELLE, "train", "all", "--repository", str(repository)],
        env=clean_environment(),
        check=True,
        timeout=600,
        stdout=subprocess.DEVNULL,
    )
    for name, load in {"breast-cancer": load_breast_cancer, "iris": load_iris}.items():
        (bundle,) = (repository / name).iterdir()
        estimator = _without_names(joblib.load(bundle / "model.joblib"))
        joblib.dump(estimator, folder / f"{name}.joblib")
        data = np.asarray(load().data)
        rows = np.resize(data, (ROWS, data.shape[1]))
        labels = estimator.predict(rows)
        engine = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["engines"][0]
        case = {"rows": rows.tolist(), "labels": labels.tolist(), "engine": engine}
        (folder / f"{name}.json").write_text(json.dumps(case), encoding="utf-8")


def _without_names(estimator: Any) -> Any:
    """Return an estimator as if it had been fitted on an array.

    Ours are fitted on named columns, and would warn at each array that the naive server gives them: work that the
    tutorials' estimators, fitted on arrays, don't have.
    """
    for part in (estimator, *(step for _, step in getattr(estimator, "steps", ()))):
        vars(part).pop("feature_names_in_", None)
    return estimator


if __name__ == "__main__":
    main(Path(sys.argv[1]))
