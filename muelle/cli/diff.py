"""``muelle diff``: what would change for callers and for the data, were B served instead of A."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from muelle.bundle import Bundle, open_bundle
from muelle.cli.compare import changed, difference, profile_shifts, signature_changes
from muelle.cli.options import find_bundle, repository_option
from muelle.cli.output import output_option, print_facts, print_json, print_table


@click.command()
@click.argument("a")
@click.argument("b")
@repository_option
@click.option(
    "--fail-on",
    type=click.Choice(["signature"]),
    help="Exit with 1 when callers of A might fail with B: a gate for a release.",
)
@output_option
@click.pass_context
def diff(ctx: click.Context, a: str, b: str, repository: Path, fail_on: str | None, output: str) -> None:
    """Compare two bundles, each a PATH or a NAME[@VERSION]; nothing of them is loaded.

    PSI is the population stability index of B's reference rows in A's bins, where "noise" is what two samples of the
    same data would show. It is computed from the two profiles, so approximately where the bins differ.

    \b
    Example:
      muelle diff iris@1 iris@2 --fail-on signature
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    bundles = [open_bundle(find_bundle(reference, repository)) for reference in (a, b)]
    document = _compare(*bundles)
    if output == "json":
        print_json(document)
    else:
        _show(document)
    ctx.exit(1 if fail_on == "signature" and not document["compatible"] else 0)


def _compare(a: Bundle, b: Bundle) -> dict[str, Any]:
    old, new = a.manifest, b.manifest
    changes = signature_changes(old.signature, new.signature)
    names = [*old.scores, *(name for name in new.scores if name not in old.scores)]
    return {
        "a": _identity(a),
        "b": _identity(b),
        "compatible": not any(change.breaking for change in changes),
        "signature": [asdict(change) for change in changes],
        "facts": _pairs(_facts(a), _facts(b)),
        "scores": [
            {
                "name": name,
                "a": old.scores.get(name),
                "b": new.scores.get(name),
                "change": difference(old.scores.get(name), new.scores.get(name)),
            }
            for name in names
        ],
        "profile": [asdict(shift) for shift in profile_shifts(a.profile, b.profile)],
        "libraries": _pairs(old.libraries, new.libraries),
        "parameters": _pairs(old.parameters, new.parameters),
    }


def _identity(bundle: Bundle) -> dict[str, str]:
    manifest = bundle.manifest
    return {"name": manifest.name, "version": manifest.version, "path": str(bundle.path), "digest": bundle.digest}


def _facts(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "estimator": manifest.estimator,
        "task": manifest.task,
        "engines": list(manifest.engines),
        "ONNX input": manifest.onnx.input_dtype,
        "code": manifest.git_commit,
        "data": manifest.data_digest,
        "created": manifest.created,
        "reference rows": bundle.profile.rows,
    }


def _pairs(a: Any, b: Any) -> list[dict[str, Any]]:
    return [{"name": key, "a": old, "b": new} for key, old, new in changed(a, b)]


def _show(document: dict[str, Any]) -> None:
    titles = [f"{side['name']} {side['version']}" for side in (document["a"], document["b"])]
    if not document["signature"]:
        verdict = "callers see no difference: the signature is the same"
    elif document["compatible"]:
        verdict = "callers of A are fine with B"
    else:
        verdict = "callers of A MAY FAIL with B"
    print_facts(f"{titles[0]} → {titles[1]}", [("verdict", verdict)])
    if document["signature"]:
        rows: Any = (
            (item["change"], "breaks callers" if item["breaking"] else "fine") for item in document["signature"]
        )
        print_table("Signature", ("change", "for callers"), rows)
    for title, key in (("Facts", "facts"), ("Libraries", "libraries"), ("Parameters", "parameters")):
        if document[key]:
            print_table(title, ("", *titles), ((item["name"], item["a"], item["b"]) for item in document[key]))
    if document["scores"]:
        rows = ((item["name"], item["a"], item["b"], item["change"]) for item in document["scores"])
        print_table("Scores", ("score", *titles, "change"), rows)
    if document["profile"]:
        print_table(
            "Reference data and predictions, the largest shift first",
            ("column", "PSI", "noise", f"mean {titles[0]}", f"mean {titles[1]}"),
            (
                (shift["column"], shift["psi"], shift["noise"], shift["mean_a"], shift["mean_b"])
                for shift in document["profile"]
            ),
        )
