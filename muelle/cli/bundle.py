"""``muelle bundle``: from a fitted estimator and some rows to a bundle."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from muelle.bundle import Bundle, open_bundle, save
from muelle.bundle.files import file_sha256
from muelle.bundle.signature import DTYPES
from muelle.cli.options import allow_module_option, repository_option
from muelle.cli.output import note, output_option, print_facts, print_json, printable, working
from muelle.cli.sample import load_fitted, sample_rows
from muelle.cli.tables import code_columns, read_table
from muelle.errors import MuelleError

T = TypeVar("T")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _pairs(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, T]]:
    """Return a callback that reads repeated ``NAME=VALUE``; a name may hold equals signs, a value may not."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, T]:
        found = {}
        for item in value:
            name, equals, text = item.rpartition("=")
            if not (name and equals):
                raise click.BadParameter(f"expected NAME=VALUE, got {item!r}")
            try:
                found[name] = parse(text)
            except ValueError as error:
                raise click.BadParameter(f"{name}: {error}") from error
        return found

    return callback


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise ValueError(f"expected one of {', '.join(DTYPES)}, got {text!r}")
    return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {text!r}")
    return number


@click.command()
@click.argument("fitted", type=_FILE)
@click.option(
    "--sample",
    type=_FILE,
    required=True,
    help="Rows that the model was trained on, or like them: CSV or Parquet with a header. They give the inputs' names "
    "and dtypes, and the reference for drift.",
)
@click.option("--name", help="Name of the model.  [default: FITTED's, without its ending]")
@click.option("--version", help="Version of the bundle.  [default: the next whole number]")
@repository_option
@click.option("--target", metavar="COLUMN", help="Column of the sample to leave out: the label.")
@click.option("--holdout", type=_FILE, help="Rows to compare ONNX on, and for the golden rows; else the sample's.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["joblib", "skops"]),
    default="joblib",
    show_default=True,
    help="How the estimator is written into the bundle.",
)
@click.option("--no-onnx", is_flag=True, help="Don't try an ONNX variant.")
@click.option(
    "--dtype",
    "dtypes",
    metavar="COLUMN=DTYPE",
    multiple=True,
    callback=_pairs(_dtype),
    help=f"Read a column as one of {', '.join(DTYPES)}; repeat for more.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Missing values may be sent in every column, not only where the sample has any.",
)
@allow_module_option
@click.option("--allow-skew", is_flag=True, help="Take an estimator that another minor release of scikit-learn made.")
@click.option("--data", type=_FILE, help="The training data: its digest is recorded.")
@click.option("--description", default="", help="Opens the model card.")
@click.option(
    "--score",
    "scores",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_pairs(_finite),
    help="A score to record, such as accuracy=0.97; repeat for more.",
)
@output_option
def bundle(  # noqa: PLR0913  # click passes each option
    *,
    fitted: Path,
    sample: Path,
    name: str | None,
    target: str | None,
    holdout: Path | None,
    no_onnx: bool,
    allow_missing: bool,
    allow_skew: bool,
    allowed_modules: tuple[str, ...],
    dtypes: dict[str, str],
    data: Path | None,
    repository: Path,
    output: str,
    version: str | None,
    file_format: Literal["joblib", "skops"],
    description: str,
    scores: dict[str, float],
) -> None:
    """Turn FITTED, an estimator or Pipeline that is already fitted, into a bundle.

    FITTED is a joblib, pickle or skops file. Only what is on the allow-list is loaded from it: an estimator with
    classes of your own needs --allow-module.

    \b
    Example:
      muelle bundle churn.joblib --sample rows.csv --target churned
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    estimator = load_fitted(fitted, allowed_modules, allow_skew=allow_skew)
    table = read_table(sample, dtypes)
    rows = sample_rows(estimator, table, str(sample), target)
    for column in code_columns(sample, table):
        note(f"{sample}: {column} was read as integers, without leading noughts; --dtype {column}=string keeps them")
    held = None
    if holdout is not None:
        held_table = read_table(holdout, dtypes)
        # A label is as superfluous in these rows, but need not be there.
        held = sample_rows(estimator, held_table, str(holdout), target if target in held_table.columns else None)
    with working(f"bundling {fitted.name}"):
        path = save(
            estimator,
            rows,
            name=name or _plain(fitted.stem),
            version=version,
            repository=repository,
            X_holdout=held,
            file_format=file_format,
            onnx=not no_onnx,
            dtypes=dtypes,
            allow_missing=True if allow_missing else None,
            allowed_modules=allowed_modules,
            scores=scores,
            data_digest=None if data is None else _digest(data),
            description=description,
        )
    _report(open_bundle(path), repository, allowed_modules, output)


def _plain(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:63] or "model"


def _digest(path: Path) -> str:
    try:
        # Resolved: data that is a link to where it lies is nothing bad.
        return f"sha256:{file_sha256(path.resolve())}"
    except OSError as error:
        raise MuelleError(f"{path}: can't be read: {error.strerror}") from error


def _report(made: Bundle, repository: Path, allowed_modules: tuple[str, ...], output: str) -> None:
    """Say what was written and what to type next."""
    manifest = made.manifest
    serve = ["muelle", "serve", "--models", str(repository)]
    for module in allowed_modules:
        serve += ["--allow-module", module]
    ask = [
        "curl",
        "-s",
        f"localhost:8080/models/{manifest.name}/predict",
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps(_example(made)),
    ]
    if output == "json":
        print_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                "path": str(made.path),
                "digest": made.digest,
                "estimator": manifest.estimator,
                "task": manifest.task,
                "engines": list(manifest.engines),
                "onnx": manifest.onnx.to_json(),
                "signature": manifest.signature.to_json(),
                "scores": dict(manifest.scores),
                "data_digest": manifest.data_digest,
                "next": {"serve": shlex.join(serve), "ask": shlex.join(ask)},
            }
        )
        return
    inputs = [f"{feature.name} {feature.dtype}" for feature in manifest.signature.inputs]
    facts: list[tuple[str, Any]] = [
        ("path", str(made.path)),
        ("estimator", manifest.estimator),
        ("task", manifest.task),
        ("inputs", [*inputs[:12], *([f"… {len(inputs)} in all"] if len(inputs) > 12 else [])]),
        ("outputs", [output.name for output in manifest.signature.outputs]),
        ("engines", manifest.engines),
        ("ONNX", manifest.onnx.reason),
        ("digest", made.digest),
    ]
    print_facts(f"{manifest.name} {manifest.version}", facts)
    click.echo("\nServe it, and ask it:")
    click.echo(f"  {printable(shlex.join(serve))}")
    click.echo(f"  {printable(shlex.join(ask))}")


def _example(made: Bundle) -> dict[str, Any]:
    """Return a request with a real row: a list where all are numbers, else an object that names the columns."""
    row = made.golden.inputs[0]
    signature = made.manifest.signature
    named: dict[str, Any] = dict(zip(signature.names, row, strict=True))
    return {"features": row if signature.layout in ("matrix", "text") else named}
