"""The training data: packaged with scikit-learn, or written down here, so that nothing is downloaded."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Dataset:
    """Rows and what is to be predicted for them.

    Attributes
    ----------
    features : DataFrame of shape (n_samples, n_features)
        The columns' names become the names in the bundle's signature.
    target : Series of shape (n_samples,)
        The labels or values.
    """

    features: pd.DataFrame
    target: pd.Series[Any]

    def digest(self) -> str:
        """Return ``sha256:`` and the digest of the data as CSV.

        The CSV is fixed to the byte, so that the same data has the same digest everywhere: a header, the target as the
        last column, floats in their shortest exact form, no index, line feeds, UTF-8.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.features.columns, self.target.name])
        columns = [self.features.iloc[:, i].tolist() for i in range(self.features.shape[1])]
        writer.writerows(zip(*columns, self.target.tolist(), strict=True))
        return f"sha256:{hashlib.sha256(text.getvalue().encode()).hexdigest()}"


def linear() -> Dataset:
    """Return y = 2x for x from 1 to 30: float64, one feature, (30, 1)."""
    import numpy as np
    import pandas as pd

    x = np.arange(1.0, 31.0)
    return Dataset(features=pd.DataFrame({"x": x}), target=pd.Series(2.0 * x, name="y"))


def breast_cancer() -> Dataset:
    """Return the Wisconsin diagnostic data: (569, 30) float64; the target is 0 for malignant, 1 for benign."""
    from sklearn.datasets import load_breast_cancer

    return _packaged(load_breast_cancer)


def iris() -> Dataset:
    """Return Fisher's iris data: (150, 4) float64, in cm; the target is 0 setosa, 1 versicolor, 2 virginica."""
    from sklearn.datasets import load_iris

    return _packaged(load_iris)


def _packaged(load: Any) -> Dataset:
    features, target = load(return_X_y=True, as_frame=True)
    return Dataset(features=features, target=target)
