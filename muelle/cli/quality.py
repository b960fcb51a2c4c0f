"""``muelle quality``: the prediction log against the labels that became known later."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muelle.cli.options import find_bundle, repository_option
from muelle.cli.output import note, output_option, print_json, print_table, working, write_page
from muelle.cli.transfer import store_options, watching
from muelle.errors import MuelleError, NotFoundError
from muelle.store.remote import Access
from muelle.store.retry import Patience

if TYPE_CHECKING:
    from muelle.quality import Row
    from muelle.quality.labels import LabelBatch
    from muelle.quality.log import LogFile
    from muelle.quality.report import References

_DATE = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option(
    "--log",
    "place",
    metavar="FOLDER_OR_URL",
    required=True,
    envvar="MUELLE_PREDICTION_LOG",
    show_envvar=True,
    help="The prediction log: what the server's setting of that name says.",
)
@click.option("--model", help="Only this model.")
@click.option("--version", help="Only this version.")
@click.option("--since", type=_DATE, metavar="DATE", help="First day (UTC) on which the predictions were answered.")
@click.option("--until", type=_DATE, metavar="DATE", help="Last day; labels count whenever they came in.")
@click.option(
    "--labels",
    "label_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Labels from elsewhere: CSV, TSV or Parquet with the columns request_id, label, and perhaps row and "
    "observed_at (without it, the label is the newest); repeat for more.",
)
@click.option(
    "--by",
    type=click.Choice(["day", "week", "month", "version"]),
    default="day",
    show_default=True,
    help="What one line of the table is; version: all days of a version together.",
)
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    metavar="REF",
    help="A bundle's PATH, or NAME[@VERSION] in the repository: its own scores are shown beside the found ones.",
)
@repository_option
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots to this file.")
@store_options
@output_option
def quality(  # noqa: PLR0913  # each is an option
    *,
    place: str,
    model: str | None,
    version: str | None,
    since: datetime | None,
    until: datetime | None,
    label_files: tuple[Path, ...],
    by: str,
    bundles: tuple[str, ...],
    repository: Path,
    html: Path | None,
    retry_seconds: float,
    insecure: bool,
    output: str,
) -> None:
    """Score what the models answered, by version and day, with 95 % intervals.

    The prediction log has the answers, and the labels that were sent to /feedback. They belong together by request id
    and row; of several labels for a row the last observed counts, and of several answers to one request id on a day the
    latest. Coverage is the share of the predictions whose label is known.

    \b
    Classes: accuracy (Wilson's interval), balanced accuracy, macro F1, and log loss
    where probabilities were answered. Numbers: MAE, RMSE, R². Intervals of all but
    the accuracy are from 1,000 bootstrap samples with a fixed seed.

    \b
    Example:
      muelle quality --log predictions --model iris --by version --html quality.html
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    from muelle.quality.report import html_report

    references = _references(bundles, repository)
    access = Access.from_environ(os.environ, insecure=insecure, retry_seconds=retry_seconds)
    rows = _evaluate(place, access, _Choice(model, version, since, until), label_files, by)
    _tell(rows)
    if html is not None:
        write_page(html, html_report(f"Quality of the predictions in {place}", rows, references))
    if output == "json":
        print_json({"log": place, "by": by, "rows": [_document(row, references) for row in rows]})
    else:
        _print_tables(rows, references)


@dataclass(frozen=True)
class _Choice:
    """What of the log is wanted."""

    model: str | None
    version: str | None
    since: datetime | None
    until: datetime | None

    def of(self, files: Sequence[LogFile]) -> list[LogFile]:
        return [
            file
            for file in files
            if self.model in (None, file.model)
            and self.version in (None, file.version)
            and (self.since is None or file.day >= self.since.date())
            and (self.until is None or file.day <= self.until.date())
        ]

    def __str__(self) -> str:
        texts = [f" of {self.model}" if self.model else "", f" version {self.version}" if self.version else ""]
        texts.append(f" since {self.since:%Y-%m-%d}" if self.since else "")
        texts.append(f" until {self.until:%Y-%m-%d}" if self.until else "")
        return "".join(texts)


def _evaluate(place: str, access: Access, choice: _Choice, label_files: Sequence[Path], by: str) -> list[Row]:
    from muelle.quality import Evaluation
    from muelle.quality.labels import Labels
    from muelle.quality.log import Reader, index
    from muelle.store.tree import open_tree

    tree = open_tree(place, access)
    with working(f"looking into {place}"):
        found = index(tree)
    chosen = choice.of(found.predictions)
    if not chosen:
        raise NotFoundError(
            f"{place}: no predictions{choice}{'' if found.predictions else ': is it a prediction log?'}"
        )
    # A label comes after its prediction, but for the difference between two machines' clocks.
    first = min(file.day for file in chosen) - timedelta(days=1)
    label_logs = [file for file in found.labels if file.day >= first]
    with watching(place) as progress:
        progress.expect(sum(file.size_bytes for file in (*chosen, *label_logs)))
        patience = Patience(access.retry_seconds, note)
        reader = Reader(tree, progress.advance, patience.call)
        labels = Labels([*reader.labels(label_logs), *_external(label_files)])
        evaluation = Evaluation(labels, by)  # type: ignore[arg-type]  # click has checked it
        for (model, version, day), group in groupby(
            reversed(chosen), lambda file: (file.model, file.version, file.day)
        ):
            files = list(group)
            evaluation.add_day(model, version, day, reader.classes(files[0]), reader.predictions(files))
    with working("computing intervals"):
        return evaluation.rows()


def _external(paths: Sequence[Path]) -> Iterator[LabelBatch]:
    """Yield the labels of files."""
    import numpy as np
    import pandas as pd

    from muelle.cli.tables import read_table
    from muelle.quality.labels import UNKNOWN_TIME, LabelBatch

    for path in paths:
        frame = read_table(path, {"request_id": "string", "label": "string", "row": "int64"})
        for name in ("request_id", "label"):
            if name not in frame.columns:
                raise MuelleError(f"{path}: expected the columns request_id and label, got {', '.join(frame.columns)}")
        frame = frame[frame["request_id"].notna() & frame["label"].notna()]
        rows = frame["row"].fillna(0).to_numpy(np.int64) if "row" in frame.columns else np.zeros(len(frame), np.int64)
        times = np.full(len(frame), UNKNOWN_TIME)
        if "observed_at" in frame.columns:
            try:
                parsed = pd.to_datetime(frame["observed_at"], utc=True, format="ISO8601").dt.as_unit("us")
            except (ValueError, TypeError) as error:
                raise MuelleError(
                    f"{path}: observed_at: expected times such as 2026-11-21T13:00:00Z: {error}"
                ) from error
            times = np.where(parsed.notna(), parsed.astype("int64"), UNKNOWN_TIME)
        texts = [frame[name].to_numpy(dtype=object) for name in ("request_id", "label")]
        yield LabelBatch(texts[0], rows, texts[1], times)


def _references(bundles: Sequence[str], repository: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Return the scores of bundles, under the names that ours have."""
    from muelle.bundle.reader import open_bundle

    found = {}
    for reference in bundles:
        manifest = open_bundle(find_bundle(reference, repository)).manifest
        found[manifest.name, manifest.version] = dict(manifest.scores)
    return found


def _tell(rows: Sequence[Row]) -> None:
    """Say what the table doesn't."""
    if repeated := sum(row.repeated for row in rows):
        note(f"{repeated} rows left out, whose request id and row came again on the same day: the latest counts")
    if unusable := sum(row.unusable for row in rows):
        note(f"{unusable} labels left out, which can't be compared with what the model predicts")
    if any(row.labelled and not row.scores for row in rows):
        note("no scores where the log has no predictions (left out of it), or several values a row")
    if not any(row.labelled for row in rows):
        note("no labels belong to these predictions: send them to /feedback, or give them with --labels")


def _print_tables(rows: Sequence[Row], references: References) -> None:
    from muelle.quality.report import TITLES, lag_text, score_text

    for model, group in groupby(rows, lambda row: row.model):
        listed = list(group)
        names = [name for name in TITLES if any(name in row.scores for row in listed)]
        header = ["version", "period", "predictions", "labelled", "coverage", "median lag"]
        header += [TITLES[name] for name in names]
        known = [name for name in names if any(name in references.get((model, row.version), {}) for row in listed)]
        header += [f"{TITLES[name]} in bundle" for name in known]
        cells = []
        for row in listed:
            line: list[object] = [row.version, row.period, row.predictions, row.labelled]
            line += [f"{row.coverage:.1%}", lag_text(row.lag_seconds)]
            line += [score_text(row.scores.get(name)) for name in names]
            line += [references.get((model, row.version), {}).get(name) for name in known]
            cells.append(line)
        print_table(model, header, cells)


def _document(row: Row, references: References) -> dict[str, Any]:
    return {
        "model": row.model,
        "version": row.version,
        "period": row.period,
        "predictions": row.predictions,
        "repeated": row.repeated,
        "labelled": row.labelled,
        "unusable": row.unusable,
        "coverage": row.coverage,
        "lag_seconds": row.lag_seconds,
        "scores": {
            name: {"value": score.value, "low": score.low, "high": score.high, "rows": score.rows}
            for name, score in row.scores.items()
        },
        "bundle_scores": references.get((row.model, row.version)),
    }
