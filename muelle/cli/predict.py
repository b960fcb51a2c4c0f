"""``muelle predict``: rows of a file, answered in this process."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muelle.bundle import fields
from muelle.cli.options import allow_module_option, engine_option, find_bundle, repository_option
from muelle.cli.output import print_json, print_table
from muelle.errors import InputError, MuelleError

if TYPE_CHECKING:
    import pandas as pd

    from muelle.bundle.signature import Signature
    from muelle.inference import Predictor


@click.command()
@click.argument("model")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@repository_option
@engine_option
@allow_module_option
@click.option("--proba", is_flag=True, help="Give each class's probability too.")
@click.option("--drop", metavar="COLUMN", multiple=True, help="Column of a table to leave out; repeat for more.")
@click.option(
    "--input",
    "kind",
    type=click.Choice(["json", "csv", "tsv", "parquet"]),
    help="What FILE is.  [default: by its ending]",
)
@click.option(
    "--output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="A table for people; JSON or CSV on standard output for programs.",
)
def predict(  # noqa: PLR0913  # click passes each option
    *,
    model: str,
    file: Path,
    repository: Path,
    engine: str,
    allowed_modules: tuple[str, ...],
    proba: bool,
    drop: tuple[str, ...],
    kind: str | None,
    output: str,
) -> None:
    """Answer the rows of FILE with MODEL, a bundle's PATH or a NAME[@VERSION], without a server.

    FILE is a table (CSV, TSV or Parquet) with the features' names in its header, or JSON as the service takes it: a
    list of rows, one row, or {"features": …}; - reads standard input, as JSON unless --input says otherwise.

    \b
    Example:
      muelle predict iris@1 rows.csv --proba
      echo '[5.1, 3.5, 1.4, 0.2]' | muelle predict iris -
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    # scikit-learn or ONNX Runtime come with it, so not before the arguments are known to be right.
    from muelle.inference import Predictor

    predictor = Predictor.load(find_bundle(model, repository), engine=engine, allowed_modules=allowed_modules)
    data = predictor.to_data(_read(predictor.signature, file, kind or _kind(file), drop))
    outputs = ("predict", "predict_proba") if proba else ("predict",)
    if proba and "predict_proba" not in predictor.signature.output_names:
        raise InputError("this model has no probabilities", code="unknown_output")
    answers = {name: array.tolist() for name, array in predictor.run(data, outputs).items()}
    _show(predictor, answers, output)


def _kind(file: Path) -> str:
    if str(file) == "-":
        return "json"
    kinds = {".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet"}
    suffix = file.suffix.lower()
    if suffix not in kinds:
        raise click.BadParameter(f"{file}: expected an ending of {', '.join(kinds)}, or --input", param_hint="FILE")
    return kinds[suffix]


def _read(signature: Signature, file: Path, kind: str, drop: tuple[str, ...]) -> Any:
    where = "standard input" if str(file) == "-" else str(file)
    if kind == "json":
        return _json_rows(_bytes(file, where), where)
    import io

    from muelle.cli.tables import read_csv, read_parquet

    dtypes = {feature.name: feature.dtype for feature in signature.inputs if feature.dtype in ("string", "bool")}
    source = io.BytesIO(_bytes(file, where))
    if kind == "parquet":
        frame = read_parquet(source, where, dtypes)
    else:
        frame = read_csv(source, where, dtypes, separator="," if kind == "csv" else "\t")
    if missing := [column for column in drop if column not in frame.columns]:
        raise MuelleError(f"{where}: no column {', '.join(missing)} to leave out; there is {', '.join(frame.columns)}")
    frame = _by_position(signature, frame.drop(columns=list(drop)))
    if unknown := [name for name in frame.columns if name not in signature.names]:
        known = ", ".join(signature.names)
        message = f"no feature of the model: {', '.join(unknown)}; --drop leaves a column out; the features are {known}"
        raise InputError(message, code="unknown_feature", where=where)
    return frame


def _bytes(file: Path, where: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise MuelleError(f"{where}: can't be read: {error.strerror}") from error


def _json_rows(data: bytes, where: str) -> list[Any]:
    """Return the rows of a JSON document: a list of them, one bare row, or either under ``features`` or ``input``."""
    rows = fields.document(data, where)
    if isinstance(rows, dict) and len(rows) == 1 and next(iter(rows)) in ("features", "input"):
        rows = next(iter(rows.values()))
    if isinstance(rows, dict):
        return [rows]
    if not isinstance(rows, list):
        raise InputError("expected rows", code="invalid_shape", where=where)
    bare = bool(rows) and not any(isinstance(row, list | dict) for row in rows)
    return [rows] if bare else rows


def _by_position(signature: Signature, frame: pd.DataFrame) -> Any:
    """Return the table by position for a model whose features never had names: its x0, x1, … stand in no header."""
    generated = signature.names == tuple(f"x{i}" for i in range(len(signature.names))) or signature.layout == "text"
    fits = frame.shape[1] == len(signature.names)
    return frame.set_axis(list(signature.names), axis=1) if generated and fits else frame


def _show(predictor: Predictor, answers: dict[str, list[Any]], output: str) -> None:
    manifest = predictor.manifest
    classes = predictor.signature.outputs[0].classes
    if output == "json":
        document = {
            "model": manifest.name,
            "version": manifest.version,
            "engine": predictor.engine,
            "predictions": answers["predict"],
        }
        if "predict_proba" in answers:
            document |= {"classes": list(classes or ()), "probabilities": answers["predict_proba"]}
        print_json(document)
        return
    columns, rows = _columns(predictor, answers)
    if output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        return
    title = f"{manifest.name} {manifest.version} ({predictor.engine})"
    # A prediction is shown in full, unlike the numbers that describe a model.
    shown = ([value if isinstance(value, int) else str(value) for value in row] for row in rows)
    print_table(title, ("row", *columns), ([i, *row] for i, row in enumerate(shown)))


def _columns(predictor: Predictor, answers: dict[str, list[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return the answers as a table: a column for each output and each class's probability."""
    predict = predictor.signature.output("predict")
    if len(predict.shape) == 1:
        columns, rows = ["prediction"], [[value] for value in answers["predict"]]
    else:
        columns = [f"prediction_{i}" for i in range(predict.shape[1])]
        rows = [list(values) for values in answers["predict"]]
    if "predict_proba" in answers:
        columns += [f"probability_{label}" for label in predict.classes or ()]
        rows = [row + list(values) for row, values in zip(rows, answers["predict_proba"], strict=True)]
    return columns, rows
