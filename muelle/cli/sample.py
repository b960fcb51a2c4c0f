"""A table's rows as a fitted estimator wants them, and the fitted estimator itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from muelle.bundle.pickles import load_pickle
from muelle.bundle.skops_files import load_skops
from muelle.cli.output import note
from muelle.errors import EstimatorError, LibrarySkewError, MuelleError

if TYPE_CHECKING:
    import pandas as pd

PICKLES: Final = (".joblib", ".pkl", ".pickle")
SKOPS: Final = ".skops"


def load_fitted(path: Path, allowed_modules: tuple[str, ...], *, allow_skew: bool) -> Any:
    """Load a fitted estimator through the allow-list.

    Parameters
    ----------
    path : Path
        ``.joblib``, ``.pkl``, ``.pickle`` or ``.skops``.
    allowed_modules : tuple of str
        Modules, besides the built-in allow-list, that it may come from.
    allow_skew : bool
        Whether it may come from another minor release of scikit-learn.

    Raises
    ------
    MuelleError
        When it can't be read, asks for more than is allowed, or comes from another scikit-learn.
    """
    suffix = path.suffix.lower()
    if suffix not in (*PICKLES, SKOPS):
        raise EstimatorError(f"{path}: expected a fitted estimator that ends in {', '.join((*PICKLES, SKOPS))}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MuelleError(f"{path}: can't be read: {error.strerror}") from error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load = load_skops if suffix == SKOPS else load_pickle
        estimator = load(data, str(path), allowed_modules)
    if not callable(getattr(estimator, "predict", None)):
        raise EstimatorError(f"{path}: expected a fitted estimator with predict, got {type(estimator).__name__}")
    _check_origin(str(path), caught, allow_skew=allow_skew)
    return estimator


def _check_origin(where: str, caught: list[warnings.WarningMessage], *, allow_skew: bool) -> None:
    """Look for scikit-learn's word that another release made this: the bundle would claim that ours did."""
    from sklearn import __version__ as here
    from sklearn.exceptions import InconsistentVersionWarning

    for warning in caught:
        if not isinstance(warning.message, InconsistentVersionWarning):
            continue
        made = str(warning.message.original_sklearn_version)
        message = f"{where}: made with scikit-learn {made}, {here} runs here"
        if made.split(".")[:2] != here.split(".")[:2] and not allow_skew:
            raise LibrarySkewError(
                f"{message}; install scikit-learn=={made}, or say --allow-skew if it is known to answer the same"
            )
        note(message)
        return


def sample_rows(estimator: Any, frame: pd.DataFrame, where: str, target: str | None) -> Any:
    """Return a table's rows as `muelle.bundle.save` wants them.

    Parameters
    ----------
    estimator : object
        Fitted. When it knows its features' names, those columns are taken in its order, and others are left out.
    frame : DataFrame
        The table.
    where : str
        The file's name, for messages.
    target : str, optional
        The column of labels, to leave out.

    Returns
    -------
    DataFrame of shape (n_samples, n_features), or array of shape (n_samples,) of str
        The latter for an estimator that takes texts.

    Raises
    ------
    EstimatorError
        When the columns are not the estimator's.
    """
    listed = ", ".join(map(str, frame.columns))
    if target is not None:
        if target not in frame.columns:
            raise EstimatorError(f"{where}: no column {target!r} to leave out; there is {listed}")
        frame = frame.drop(columns=target)
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        names = [str(name) for name in names]
        if missing := [name for name in names if name not in frame.columns]:
            raise EstimatorError(
                f"{where}: no column {', '.join(missing)}, which the estimator was fitted on; got {listed}"
            )
        if unused := [str(name) for name in frame.columns if name not in names]:
            note(f"{where}: left out, since the estimator was fitted without: {', '.join(unused)}")
        return frame[names]
    width = getattr(estimator, "n_features_in_", None)
    if width is None and frame.shape[1] == 1 and not _is_number(frame.iloc[:, 0]):
        return _texts(frame, where)
    if width is not None and width != frame.shape[1]:
        raise EstimatorError(
            f"{where}: the estimator was fitted on {width} features, the sample has {frame.shape[1]} columns ({listed})"
            "; --target COLUMN leaves the label out"
        )
    return frame


def _is_number(column: pd.Series[Any]) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return is_numeric_dtype(column) or is_bool_dtype(column)


def _texts(frame: pd.DataFrame, where: str) -> Any:
    column = frame.iloc[:, 0]
    if column.isna().any():
        row = int(column.isna().to_numpy().argmax())
        raise EstimatorError(f"{where}: column {frame.columns[0]!r}: row {row} has no text")
    return column.astype(object).to_numpy()
