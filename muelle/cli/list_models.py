"""``muelle list``: what a repository holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from muelle.bundle.manifest import Manifest
from muelle.bundle.reader import read_manifest_bytes
from muelle.cli.options import repository_option
from muelle.cli.output import cell, output_option, print_json, print_table
from muelle.errors import BundleError
from muelle.store import Repository


@click.command("list")
@repository_option
@output_option
def list_models(repository: Path, output: str) -> None:
    """List the models and versions of a repository, oldest version first.

    Only the manifests are read; `muelle verify` looks at the files too.

    \b
    Example:
      muelle list --repository models --output json
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    bundles = Repository(repository).bundles()
    found = [_facts(name, version, path) for name, versions in bundles.items() for version, path in versions.items()]
    if output == "json":
        print_json(found)
        return
    print_table(
        "",
        ("model", "version", "created", "estimator", "engines", "scores", "problem"),
        (
            (
                facts["name"],
                facts["version"],
                facts["created"],
                facts["estimator"],
                facts["engines"],
                _scores(facts["scores"]),
                facts["problem"] or "",
            )
            for facts in found
        ),
    )


def _facts(name: str, version: str, path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "version": version, "path": str(path)}
    try:
        manifest = Manifest.from_bytes(read_manifest_bytes(path))
    except BundleError as error:
        unknown = dict.fromkeys(("created", "task", "estimator", "engines", "scores"))
        return facts | unknown | {"problem": str(error)}
    problem = None
    if (manifest.name, manifest.version) != (name, version):
        problem = f"its manifest says it is {manifest.name} {manifest.version}"
    return facts | {
        "created": manifest.created,
        "task": manifest.task,
        "estimator": manifest.estimator,
        "engines": list(manifest.engines),
        "scores": dict(manifest.scores),
        "problem": problem,
    }


def _scores(scores: dict[str, float] | None) -> str:
    """Return the held-out scores; those of cross-validation are in ``inspect``."""
    held_out = {name: value for name, value in (scores or {}).items() if not name.startswith("cv_")}
    return ", ".join(f"{name} {cell(value)}" for name, value in list(held_out.items())[:4])
