"""Scores of predictions against labels, added up in a stream: nothing of a row is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from muelle.bundle.data import Array
from muelle.quality.intervals import NOWHERE, StreamedBootstrap, percentile_interval, resampled_tables, wilson

#: What a probability counts as at least in the log loss, as in scikit-learn.
_LEAST: Final = float(np.finfo(np.float64).eps)
#: Kinds of (actual, predicted) up to which tables of them are resampled: more would take too long.
_MOST_CELLS: Final = 20_000


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        NaN where there is too little for one.
    rows : int
        That it was made from.
    better : int
        1 when more is better, -1 when less is.
    """

    value: float
    low: float
    high: float
    rows: int
    better: int = 1


class Classification:
    """Scores of predicted classes.

    Parameters
    ----------
    seed : int
        Of the bootstrap.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._confusion: Counter[tuple[str, str]] = Counter()
        self._loss = StreamedBootstrap(2, seed)

    def add(self, actual: Sequence[str], predicted: Sequence[str]) -> None:
        """Add rows: the class that came true and the one that was predicted, as texts."""
        self._confusion.update(zip(actual, predicted, strict=True))

    def add_probabilities(self, of_actual: Array) -> None:
        """Add rows whose probabilities were answered: shape (n_rows,), each that of the class that came true."""
        loss = -np.log(np.clip(of_actual, _LEAST, 1 - _LEAST))
        self._loss.add(np.column_stack([np.ones(len(loss)), loss]))

    def scores(self) -> dict[str, Score]:
        """Return accuracy, balanced accuracy, macro F1, and log loss where there were probabilities.

        They are scikit-learn's ``accuracy_score``, ``balanced_accuracy_score`` (the mean recall of the classes that
        came true), ``f1_score(average="macro")`` (of those that came true or were predicted) and ``log_loss``.
        """
        rows = self._confusion.total()
        if not rows:
            return {}
        cells = sorted(self._confusion)
        counts = np.array([self._confusion[cell] for cell in cells])
        right = int(sum(count for (actual, predicted), count in self._confusion.items() if actual == predicted))
        found = {"accuracy": Score(right / rows, *wilson(right, rows), rows)}
        balanced, macro = _by_class(cells, counts[None, :])
        if len(cells) <= _MOST_CELLS:
            again = [_by_class(cells, tables) for tables in resampled_tables(counts, self._seed)]
            intervals = [percentile_interval(np.concatenate(score)) for score in zip(*again, strict=True)]
        else:
            intervals = [NOWHERE, NOWHERE]
        found["balanced_accuracy"] = Score(float(balanced[0]), *intervals[0], rows)
        found["macro_f1"] = Score(float(macro[0]), *intervals[1], rows)
        return found | self._log_loss()

    def _log_loss(self) -> dict[str, Score]:
        rows, total = self._loss.sums
        if not rows:
            return {}
        with np.errstate(invalid="ignore", divide="ignore"):
            again = self._loss.resampled[:, 1] / self._loss.resampled[:, 0]
        return {"log_loss": Score(float(total / rows), *percentile_interval(again), int(rows), better=-1)}


class Regression:
    """Scores of predicted numbers.

    Parameters
    ----------
    seed : int
        Of the bootstrap.
    """

    def __init__(self, seed: int) -> None:
        self._sums = StreamedBootstrap(5, seed)
        self._origin: float | None = None

    def add(self, actual: NDArray[np.float64], predicted: NDArray[np.float64]) -> None:
        """Add rows: arrays of shape (n_rows,) without NaN."""
        if not len(actual):
            return
        if self._origin is None:
            # Near the mean, so that the squares below don't swallow the spread of large numbers.
            self._origin = float(actual.mean())
        error, level = actual - predicted, actual - self._origin
        self._sums.add(np.column_stack([np.ones(len(actual)), np.abs(error), error**2, level, level**2]))

    def scores(self) -> dict[str, Score]:
        """Return MAE, RMSE and R².

        They are scikit-learn's ``mean_absolute_error``, ``root_mean_squared_error`` and ``r2_score``.
        """
        rows = int(self._sums.sums[0])
        if not rows:
            return {}
        values = _of_errors(self._sums.sums[None, :])
        again = _of_errors(self._sums.resampled)
        return {
            name: Score(float(values[name][0]), *percentile_interval(again[name]), rows, better)
            for name, better in (("mae", -1), ("rmse", -1), ("r2", 1))
        }


def _by_class(cells: Sequence[tuple[str, str]], counts: Array) -> tuple[Array, Array]:
    """Return balanced accuracy and macro F1 of each table of counts, of shape (n_tables, n_cells)."""
    classes = {name: place for place, name in enumerate(sorted({name for cell in cells for name in cell}))}
    came_true = np.zeros((len(counts), len(classes)))
    predicted, right = came_true.copy(), came_true.copy()
    for place, (actual, answer) in enumerate(cells):
        came_true[:, classes[actual]] += counts[:, place]
        predicted[:, classes[answer]] += counts[:, place]
        if actual == answer:
            right[:, classes[actual]] += counts[:, place]
    there, either = came_true > 0, (came_true + predicted) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(there, right / came_true, 0.0)
        f1 = np.where(either, 2 * right / (came_true + predicted), 0.0)
        return recall.sum(axis=1) / there.sum(axis=1), f1.sum(axis=1) / either.sum(axis=1)


def _of_errors(sums: Array) -> dict[str, Array]:
    """Return the scores of each row of sums: of 1, |error|, error², level, level²."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rows, absolute, squared, level, level_squared = sums.T
        spread = level_squared - level**2 / rows
        # Of labels that are all the same there is nothing to explain; what is left is rounding.
        explained = np.where(spread > 1e-12 * level_squared, 1 - squared / spread, np.nan)
        return {"mae": absolute / rows, "rmse": np.sqrt(squared / rows), "r2": explained}
