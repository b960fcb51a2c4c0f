"""``muelle drift``: rows of a file against a bundle's reference profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muelle.cli.options import allow_module_option, engine_option, find_bundle, repository_option
from muelle.cli.output import note, output_option, print_json, print_table, working, write_page
from muelle.errors import EngineError, InputError

if TYPE_CHECKING:
    from muelle.bundle.data import Array
    from muelle.bundle.reader import Bundle
    from muelle.drift import Comparison

#: The exit code when something has drifted, for scripts; 1 is a failure of the command itself.
_DRIFTED = 3


@click.command()
@click.option(
    "--from",
    "file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Table of rows: CSV, TSV or Parquet, with the features' names in its header.",
)
@click.option("--bundle", "model", required=True, help="A bundle's PATH, or NAME[@VERSION] in the repository.")
@repository_option
@engine_option
@allow_module_option
@click.option("--predictions/--no-predictions", default=True, help="Answer the rows, and compare the answers too.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots to this file.")
@output_option
def drift(
    *,
    file: Path,
    model: str,
    repository: Path,
    engine: str,
    allowed_modules: tuple[str, ...],
    predictions: bool,
    html: Path | None,
    output: str,
) -> None:
    """Compare a file of rows with the data that a model was made from.

    The same numbers as the alerts in Prometheus, offline: the population stability index of each feature, of the
    predictions and of the model's confidence; the noise to expect of so many rows; and whether it has drifted.

    Exit codes: 0 no drift; 3 something has drifted; 1 the command failed.

    \b
    Example:
      muelle drift --from yesterday.parquet --bundle iris@1 --html drift.html
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    from muelle.bundle.reader import open_bundle
    from muelle.cli.tables import read_table
    from muelle.drift.report import html_report
    from muelle.drift.window import compare_columns

    bundle = open_bundle(find_bundle(model, repository))
    signature = bundle.manifest.signature
    texts = {feature.name: feature.dtype for feature in signature.inputs if feature.dtype in ("string", "bool")}
    frame = read_table(file, texts)
    columns = {str(name): _values(frame[name]) for name in frame.columns}
    with working(f"comparing {len(frame)} rows"):
        compared = compare_columns(bundle.profile.inputs, columns)
        if predictions:
            compared |= _answers(bundle, frame[list(signature.names)], engine, allowed_modules)
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    if html is not None:
        write_page(html, html_report(f"Drift of {name} in {file.name}", compared))
    if output == "json":
        print_json({"model": bundle.manifest.name, "version": bundle.manifest.version, "columns": _document(compared)})
    else:
        header = ("column", "PSI", "noise", "critical", "excess", "rows", "most changed bin", "verdict")
        print_table(f"{name}: {len(frame)} rows of {file}", header, (_row(*item) for item in compared.items()))
    if any(item.state == "drifted" for item in compared.values()):
        raise click.exceptions.Exit(_DRIFTED)


def _values(column: Any) -> Array:
    """Return a pandas column as the service sees it: NaN for missing numbers, None for other missing values."""
    if column.dtype.kind in "iufb":
        values: Array = column.to_numpy()
        return values
    return column.astype(object).where(column.notna(), None).to_numpy(dtype=object)  # type: ignore[no-any-return]


def _answers(bundle: Bundle, rows: Any, engine: str, allowed: tuple[str, ...]) -> dict[str, Comparison]:
    """Compare the model's answers for the rows; rows that it would refuse are an error of the caller's."""
    from muelle.bundle.profile import CONFIDENCE
    from muelle.drift.window import compare_columns
    from muelle.inference import Predictor

    predictor = Predictor.load(bundle.path, engine=engine, allowed_modules=allowed)
    profile = bundle.profile.predictions
    wanted = ("predict", "predict_proba") if CONFIDENCE in profile else ("predict",)
    try:
        answers = predictor.run(predictor.to_data(rows), wanted)
    except (InputError, EngineError) as error:
        note(f"predictions are not compared, since the model refuses a row: {error}")
        return {}
    predict = answers["predict"]
    columns = {"predict": predict} if predict.ndim == 1 else {f"predict[{i}]": v for i, v in enumerate(predict.T)}
    if CONFIDENCE in profile:
        columns[CONFIDENCE] = answers["predict_proba"].max(axis=1)
    return {f"({name})": item for name, item in compare_columns(profile, columns).items()}


def _row(name: str, item: Comparison) -> tuple[object, ...]:
    numbers = (round(value, 4) for value in (item.psi, item.noise, item.critical, item.excess))
    return (name, *numbers, item.observations, item.largest_change, item.state)


def _document(compared: dict[str, Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "column": name,
            "psi": item.psi,
            "noise": item.noise,
            "critical": item.critical,
            "excess": item.excess,
            "observations": item.observations,
            "reference_observations": item.reference_observations,
            "state": item.state,
            "bins": [
                {"bin": label, "observed": float(observed), "reference": float(reference)}
                for label, observed, reference in zip(item.labels, item.observed, item.reference, strict=True)
            ],
        }
        for name, item in compared.items()
    ]
