"""The reference profile: how each feature and prediction was distributed when the model was made.

Numeric columns: bins between the reference's deciles, ties merged, the outer bins open; a bin holds ``low < value <=
high``. Others: the 15 most frequent values, then ``other``. Missing values are counted apart. (Design: monitoring.md,
"Drift".)
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from muelle.bundle import fields
from muelle.bundle.data import Array, Data, columns, missing_mask
from muelle.bundle.signature import NUMBERS, Scalar, Signature
from muelle.errors import ManifestError

#: The entry beside the predictions for how sure a classifier was.
CONFIDENCE: Final = "confidence"
_TOP: Final = 15
_DECILES: Final = np.arange(0.1, 0.95, 0.1)


@dataclass(frozen=True)
class ColumnProfile:
    """One column's reference distribution.

    Attributes
    ----------
    kind : str
        ``numeric`` or ``categorical``.
    edges : tuple of float
        Inner bin edges, ascending, for a numeric column: ``len(counts) - 1`` of them.
    values : tuple of scalars
        The frequent values of a categorical column: ``len(counts) - 1`` of them, the last count being ``other``.
    counts : tuple of int
        Rows in each bin.
    missing : int
        Rows without a value.
    mean, std, minimum, median, maximum : float, optional
        Of the finite values of a numeric column; None without any, or where it would be too large for a float.
    """

    kind: str
    counts: tuple[int, ...]
    missing: int
    edges: tuple[float, ...] = ()
    values: tuple[Scalar, ...] = ()
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    median: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Profile:
    """All columns' reference distributions.

    Attributes
    ----------
    rows : int
        How many reference rows there were.
    inputs, predictions : mapping
        Feature name, or output column (``predict``, or ``predict[1]`` of several), to its distribution. A classifier
        with probabilities also has ``confidence``, the largest probability of a row.
    """

    rows: int
    inputs: dict[str, ColumnProfile]
    predictions: dict[str, ColumnProfile]

    def to_bytes(self) -> bytes:
        """Return profile.json's bytes."""
        document = {
            "rows": self.rows,
            "inputs": {name: vars(column) for name, column in self.inputs.items()},
            "predictions": {name: vars(column) for name, column in self.predictions.items()},
        }
        return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Profile:
        """Parse profile.json; raises `ManifestError` with the field's place."""
        raw = fields.mapping(fields.document(data, "profile.json"), "profile.json", tuple(cls.__dataclass_fields__))
        return cls(
            rows=fields.integer(raw["rows"], "rows"),
            inputs=_columns(raw["inputs"], "inputs"),
            predictions=_columns(raw["predictions"], "predictions"),
        )


def build_profile(signature: Signature, data: Data, predictions: Array, probabilities: Array | None = None) -> Profile:
    """Return the profile of reference rows and of the predictions for them.

    Parameters
    ----------
    signature : Signature
        Says which columns are numbers.
    data : Data
        The reference rows.
    predictions : array of shape (n_samples,) or (n_samples, k)
        What ``predict`` answered for them.
    probabilities : array of shape (n_samples, n_classes) float64, optional
        What ``predict_proba`` answered; a row's largest is its confidence.
    """
    kinds = {feature.name: feature.dtype in NUMBERS and not feature.categories for feature in signature.inputs}
    inputs = {name: _profile(column, numeric=kinds[name]) for name, column in columns(signature, data).items()}
    numeric = signature.output("predict").dtype == "float64"
    answers = {"predict": predictions}
    if predictions.ndim == 2:
        answers = {f"predict[{i}]": predictions[:, i] for i in range(predictions.shape[1])}
    return Profile(
        rows=len(predictions),
        inputs=inputs,
        predictions={name: _profile(column, numeric=numeric) for name, column in answers.items()}
        | ({} if probabilities is None else {CONFIDENCE: _profile(probabilities.max(axis=1), numeric=True)}),
    )


def _profile(column: Array, *, numeric: bool) -> ColumnProfile:
    missing = missing_mask(column)
    present = column[~missing]
    if numeric:
        return _numeric(present.astype(np.float64), int(missing.sum()))
    counted = Counter(present.tolist()).most_common()
    top = counted[:_TOP]
    other = sum(count for _, count in counted[_TOP:])
    return ColumnProfile(
        kind="categorical",
        values=tuple(value for value, _ in top),
        counts=(*(count for _, count in top), other),
        missing=int(missing.sum()),
    )


def _numeric(present: Array, missing: int) -> ColumnProfile:
    finite = present[np.isfinite(present)]
    if finite.size == 0:
        return ColumnProfile(kind="numeric", counts=(present.size,), missing=missing)
    # Values near the largest float overflow in sums and squares; such a statistic is left out.
    with np.errstate(over="ignore", invalid="ignore"):
        edges = np.unique(np.quantile(finite, _DECILES))
        mean, std, median = float(finite.mean()), float(finite.std()), float(np.median(finite))
    # An edge at the maximum would leave the last bin empty for ever.
    edges = edges[edges < finite.max()]
    # Infinite values are in the outer bins, which are open.
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    return ColumnProfile(
        kind="numeric",
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        missing=missing,
        mean=mean if math.isfinite(mean) else None,
        std=std if math.isfinite(std) else None,
        minimum=float(finite.min()),
        median=median if math.isfinite(median) else None,
        maximum=float(finite.max()),
    )


def _columns(value: object, where: str) -> dict[str, ColumnProfile]:
    return {name: _column(item, f"{where}.{name}") for name, item in fields.free_mapping(value, where).items()}


def _column(value: object, where: str) -> ColumnProfile:
    raw = fields.mapping(value, where, tuple(ColumnProfile.__dataclass_fields__))

    def statistic(key: str) -> Any:
        return None if raw[key] is None else fields.number(raw[key], f"{where}.{key}")

    column = ColumnProfile(
        kind=fields.choice(raw["kind"], f"{where}.kind", ("numeric", "categorical")),
        counts=tuple(fields.integer(n, f"{where}.counts") for n in fields.sequence(raw["counts"], f"{where}.counts")),
        missing=fields.integer(raw["missing"], f"{where}.missing"),
        edges=tuple(fields.number(n, f"{where}.edges") for n in fields.sequence(raw["edges"], f"{where}.edges")),
        values=fields.scalars(raw["values"], f"{where}.values"),
        mean=statistic("mean"),
        std=statistic("std"),
        minimum=statistic("minimum"),
        median=statistic("median"),
        maximum=statistic("maximum"),
    )
    bins = len(column.edges if column.kind == "numeric" else column.values) + 1
    if len(column.counts) != bins:
        raise ManifestError(f"{where}.counts: expected {bins}, got {len(column.counts)}")
    return column
