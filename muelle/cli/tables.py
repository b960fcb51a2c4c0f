"""CSV and Parquet files as DataFrames."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from muelle.bundle.data import NUMPY_DTYPES
from muelle.bundle.signature import DTYPES
from muelle.errors import EstimatorError, InputError, MuelleError

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS: Final = {".csv": ",", ".tsv": "\t"}
_PARQUET: Final = (".parquet", ".pq")
#: Endings that `read_table` knows.
TABLE_SUFFIXES: Final = (*_SEPARATORS, *_PARQUET)
#: Pandas' own list. In a column of texts they are texts: None and NA are names of classes, countries and couriers.
_MISSING: Final = (
    *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "None", "NULL", "null", "<NA>", "#NA", "#N/A"),
    *("#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def read_table(path: Path, dtypes: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a table whose ending says what it is.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.tsv``, ``.parquet`` or ``.pq``.
    dtypes : mapping, optional
        Column name to one of `muelle.bundle.signature.DTYPES`, where the file's own is not what is meant: a postal code
        that looks like a number, say. Columns that the table lacks are passed over.

    Raises
    ------
    MuelleError
        When it can't be read; the message names the file.
    """
    suffix = path.suffix.lower()
    if suffix in _SEPARATORS:
        return read_csv(path, str(path), dtypes, separator=_SEPARATORS[suffix])
    if suffix not in _PARQUET:
        raise MuelleError(f"{path}: expected a file that ends in {', '.join(TABLE_SUFFIXES)}")
    return read_parquet(path, str(path), dtypes)


def read_parquet(source: Path | IO[bytes], where: str, dtypes: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read Parquet; otherwise as `read_table`."""
    import pandas as pd

    try:
        frame = pd.read_parquet(_arrows_own(source))
    except ImportError as error:
        raise MuelleError(f"{where}: Parquet needs pyarrow: pip install 'muelle[train]'") from error
    except Exception as error:  # pyarrow's errors have no common root
        raise _unreadable(where, error) from error
    frame.columns = pd.Index([str(name) for name in frame.columns])
    return _convert(frame, where, dtypes or {})


def _arrows_own(source: Path | IO[bytes]) -> Any:
    """Return what Arrow can read by itself.

    Its threads may still hold what they read from when the interpreter ends. A file of Python's, which pandas before 3
    makes of a path, too, they would touch then, and abort the process after its answer (apache/arrow#33975).
    """
    import pyarrow as pa

    if not isinstance(source, Path):
        return pa.BufferReader(source.read())
    # A folder is a table in parts.
    return source if source.is_dir() else pa.OSFile(str(source))


def read_csv(
    source: Path | IO[bytes], where: str, dtypes: Mapping[str, str] | None = None, *, separator: str = ","
) -> pd.DataFrame:
    """Read CSV with a header line, in UTF-8; an index that pandas wrote is dropped. Otherwise as `read_table`.

    In a column that is said to be of texts only the empty cell is missing; in others, words such as NA are, too.

    Raises
    ------
    InputError
        When rows have more fields than the header.
    """
    import pandas as pd

    texts = {name: str for name, dtype in (dtypes or {}).items() if dtype == "string"}
    try:
        header = pd.read_csv(source, sep=separator, nrows=0).columns
        if not isinstance(source, Path):
            source.seek(0)
        with warnings.catch_warnings():
            # Pandas would take the first fields of longer rows for an index, or else drop the last with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                source,
                sep=separator,
                # Strings are asked for at once: after the fact, the postal code 01234 would be 1234.
                dtype=texts,
                na_values={name: [""] if name in texts else _MISSING for name in header},
                keep_default_na=False,
                index_col=False,
            )
    except pd.errors.ParserWarning as error:
        raise InputError("rows have more fields than the header", code="invalid_shape", where=where) from error
    except Exception as error:  # pandas raises ValueErrors, UnicodeErrors, OSErrors and its own
        raise _unreadable(where, error) from error
    if (
        len(frame.columns) > 1
        and frame.columns[0] == "Unnamed: 0"
        and list(frame.iloc[:, 0]) == list(range(len(frame)))
    ):
        frame = frame.iloc[:, 1:]
    return _convert(frame, where, dtypes or {})


def code_columns(path: Path, frame: pd.DataFrame) -> list[str]:
    """Return the columns of a CSV file that were read as integers, but start with a nought: postal codes, say.

    Parameters
    ----------
    path : Path
        Any table; only CSV and TSV can have such columns.
    frame : DataFrame
        What `read_table` made of it.
    """
    import pandas as pd

    separator = _SEPARATORS.get(path.suffix.lower())
    integers = [name for name in frame.columns if frame[name].dtype.kind == "i"]
    if separator is None or not integers:
        return []
    start = pd.read_csv(path, sep=separator, dtype=str, usecols=integers, nrows=1000)
    return [name for name in integers if start[name].str.match(r"-?0\d").any()]


def _convert(frame: pd.DataFrame, where: str, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Bring the columns named into their dtypes."""
    for name, dtype in dtypes.items():
        if dtype not in DTYPES:
            raise EstimatorError(f"{name}: expected a dtype of {', '.join(DTYPES)}, got {dtype!r}")
        if name in frame.columns:
            try:
                frame = frame.assign(**{name: _column(frame[name], dtype)})
            except (TypeError, ValueError, KeyError) as error:
                raise EstimatorError(f"{where}: column {name!r} can't be read as {dtype}: {error}") from error
    return frame


def _column(column: pd.Series[Any], dtype: str) -> pd.Series[Any]:
    import pandas as pd

    if dtype == "string":
        return column.map(str, na_action="ignore")
    if dtype == "bool":
        known = column.map(lambda value: _BOOLEANS.get(str(value).lower()), na_action="ignore")
        if (known.isna() & column.notna()).any():
            bad = column[known.isna() & column.notna()].iloc[0]
            raise ValueError(f"expected true or false, got {bad!r}")
        return known if known.isna().any() else known.astype(bool)
    numbers = pd.to_numeric(column)
    if dtype == "int64":
        present = numbers.dropna()
        if (present % 1 != 0).any():
            raise ValueError(f"expected an integer, got {present[present % 1 != 0].iloc[0]!r}")
        # With missing values the integers stay floats, as numpy has no missing integer.
        return numbers.astype("int64") if len(present) == len(numbers) else numbers
    return numbers.astype(NUMPY_DTYPES[dtype])


def _unreadable(where: str, error: Exception) -> MuelleError:
    reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip().splitlines()[0]
    return MuelleError(f"{where}: can't be read: {reason}")
