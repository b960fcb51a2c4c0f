"""``muelle train``: the examples, from data to bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from muelle.bundle import open_bundle
from muelle.cli.options import repository_option
from muelle.cli.output import cell, output_option, print_json, print_table, working
from training.pipelines import recipes
from training.publish import publish


@click.command()
@click.argument("name", type=click.Choice([*recipes(), "all"]), default="all")
@repository_option
@click.option("--version", help="Version of the bundle.  [default: the next whole number]")
@click.option("--no-onnx", is_flag=True, help="Don't try an ONNX variant.")
@output_option
def train(name: str, repository: Path, version: str | None, no_onnx: bool, output: str) -> None:
    """Train an example, or all of them, and write each as a bundle.

    The data comes with scikit-learn; nothing is downloaded. 80 % of the rows train, 20 % score. training/pipelines.py
    says how to add a model of your own.

    \b
    Example:
      muelle train iris
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    chosen = recipes().values() if name == "all" else [recipes()[name]]
    trained = []
    for recipe in chosen:
        with working(f"training {recipe.name}"):
            trained.append(_facts(publish(recipe, repository=repository, version=version, onnx=not no_onnx)))
    if output == "json":
        print_json(trained)
        return
    print_table(
        "",
        ("model", "version", "scores", "engines", "ONNX", "path"),
        (
            (
                facts["name"],
                facts["version"],
                "\n".join(f"{score} {cell(value)}" for score, value in facts["scores"].items()),
                facts["engines"],
                facts["onnx"]["reason"],
                facts["path"],
            )
            for facts in trained
        ),
    )


def _facts(path: Path) -> dict[str, Any]:
    """Return what there is to say of a bundle that was just written."""
    manifest = open_bundle(path).manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "estimator": manifest.estimator,
        "scores": dict(manifest.scores),
        "engines": list(manifest.engines),
        "onnx": manifest.onnx.to_json(),
        "data_digest": manifest.data_digest,
        "path": str(path),
    }
