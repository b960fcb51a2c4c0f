"""A table of rows against a bundle's profile."""

from __future__ import annotations

from collections.abc import Mapping

from muelle.bundle.binning import Binning
from muelle.bundle.data import Array
from muelle.bundle.profile import ColumnProfile
from muelle.drift.statistics import Comparison, compare
from muelle.errors import InputError


def compare_columns(profile: Mapping[str, ColumnProfile], columns: Mapping[str, Array]) -> dict[str, Comparison]:
    """Compare each column that the profile has.

    Parameters
    ----------
    profile : mapping
        Column name to its reference distribution.
    columns : mapping
        Column name to its values of shape (n_samples,); others than the profile's are passed over.

    Returns
    -------
    dict
        Column name to comparison, the largest excess first.

    Raises
    ------
    InputError
        When a column is missing, or holds what can't be counted in its bins.
    """
    if missing := [name for name in profile if name not in columns]:
        raise InputError(f"missing {', '.join(missing)}", code="missing_feature", where="columns")
    found = {name: compare(binning, _count(name, binning, columns[name])) for name, binning in _binnings(profile)}
    return dict(sorted(found.items(), key=lambda item: item[1].excess, reverse=True))


def _binnings(profile: Mapping[str, ColumnProfile]) -> list[tuple[str, Binning]]:
    return [(name, Binning.of(column)) for name, column in profile.items()]


def _count(name: str, binning: Binning, values: Array) -> Array:
    try:
        return binning.count(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected numbers: {error}", code="invalid_value", where=name) from error
