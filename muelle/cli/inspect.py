"""``muelle inspect``: what is in a bundle or model file, with nothing of it executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from muelle.bundle.files import sha256
from muelle.bundle.manifest import MANIFEST, Manifest
from muelle.bundle.reader import read_manifest_bytes
from muelle.cli.contents import FORMATS, Contents, look_into, look_into_folder
from muelle.cli.options import allow_module_option, find_bundle, repository_option
from muelle.cli.output import cell, output_option, print_facts, print_json, print_table
from muelle.errors import BundleError


@click.command()
@click.argument("model")
@repository_option
@allow_module_option
@output_option
def inspect(model: str, repository: Path, allowed_modules: tuple[str, ...], output: str) -> None:
    """Say what is in MODEL, executing nothing of it.

    MODEL is a bundle's PATH, a NAME[@VERSION] in the repository, or a joblib, pickle, skops or ONNX file. Shown are the
    manifest's facts, the signature, each file with its digest, and every global that a pickle would import, allowed
    or refused. A damaged bundle is shown as far as it can be read. To judge one, use `muelle verify`.

    \b
    Example:
      muelle inspect iris@1
      muelle inspect downloaded.pkl
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    path = Path(model)
    if path.is_file() and path.name != MANIFEST:
        _inspect_file(path, allowed_modules, output)
        return
    # Somebody may well complete the path to the manifest.
    folder = path.parent if path.is_file() else find_bundle(model, repository)
    _inspect_bundle(folder, allowed_modules, output)


def _inspect_file(path: Path, allowed_modules: tuple[str, ...], output: str) -> None:
    if path.suffix.lower() not in FORMATS:
        raise BundleError(f"{path}: expected a bundle's folder, or a file that ends in {', '.join(FORMATS)}")
    contents = look_into(path.resolve(), allowed_modules)
    if output == "json":
        print_json({"kind": "file", "path": str(path), **contents.to_json()})
        return
    facts = [("format", contents.format), ("bytes", contents.size_bytes), ("SHA-256", contents.sha256)]
    print_facts(str(path), [*facts, ("problem", contents.problem)])
    _print_contents(contents)


def _inspect_bundle(folder: Path, allowed_modules: tuple[str, ...], output: str) -> None:
    manifest, digest, problems = None, None, []
    try:
        data = read_manifest_bytes(folder)
        digest = f"sha256:{sha256(data)}"
        manifest = Manifest.from_bytes(data)
    except BundleError as error:
        if not folder.is_dir():
            raise
        problems.append(str(error))
    files = look_into_folder(folder, manifest, allowed_modules)
    # That the manifest is missing was said by whoever tried to read it.
    problems += [f"{found.name}: {found.problem}" for found in files if found.problem and found.name != MANIFEST]
    if output == "json":
        print_json(
            {
                "kind": "bundle",
                "path": str(folder),
                "digest": digest,
                "manifest": None if manifest is None else fields_of(manifest),
                "files": [found.to_json() for found in files],
                "problems": problems,
            }
        )
        return
    if manifest is None:
        print_facts(str(folder), [("manifest", "can't be read")])
    else:
        _print_manifest(manifest, folder, digest)
    print_table(
        "Files",
        ("file", "state", "bytes", "SHA-256"),
        ((found.name, found.state, found.size_bytes, found.sha256) for found in files),
    )
    for found in files:
        _print_contents(found)
    if problems:
        print_table("Problems", ("",), ([problem] for problem in problems))


def fields_of(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's facts as JSON; its files stand apart, with what was found of them."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "created": manifest.created,
        "estimator": manifest.estimator,
        "task": manifest.task,
        "git_commit": manifest.git_commit,
        "data_digest": manifest.data_digest,
        "signature": manifest.signature.to_json(),
        "engines": list(manifest.engines),
        "onnx": manifest.onnx.to_json(),
        "libraries": dict(manifest.libraries),
        "scores": dict(manifest.scores),
        "parameters": dict(manifest.parameters),
    }


def _print_manifest(manifest: Manifest, folder: Path, digest: str | None) -> None:
    facts: list[tuple[str, object]] = [
        ("path", str(folder)),
        ("digest", digest),
        ("estimator", manifest.estimator),
        ("task", manifest.task),
        ("created", manifest.created),
        ("code", manifest.git_commit or "not recorded"),
        ("data", manifest.data_digest or "not recorded"),
        ("engines", manifest.engines),
        ("ONNX", manifest.onnx.reason),
        ("libraries", [f"{name} {version}" for name, version in manifest.libraries.items()]),
        ("layout", manifest.signature.layout),
    ]
    facts += [(f"score {name}", value) for name, value in manifest.scores.items()]
    facts += [(f"parameter {name}", value) for name, value in manifest.parameters.items()]
    print_facts(f"{manifest.name} {manifest.version}", facts)
    print_table(
        "Inputs",
        ("name", "dtype", "missing allowed", "categories"),
        (
            (feature.name, feature.dtype, feature.nullable, "any" if feature.categories is None else feature.categories)
            for feature in manifest.signature.inputs
        ),
    )
    print_table(
        "Outputs",
        ("name", "dtype", "shape", "classes"),
        ((item.name, item.dtype, str(list(item.shape)), item.classes) for item in manifest.signature.outputs),
    )


def _print_contents(contents: Contents) -> None:
    """Print a model file's globals or graph."""
    if contents.format in ("pickle", "skops") and contents.sha256 and (contents.globals or not contents.problem):
        what = "types that skops does not trust by itself" if contents.format == "skops" else "globals it would import"
        rows = sorted(contents.globals, key=lambda item: (item[1], item[0]))
        bad = sum(not allowed for _, allowed in rows)
        print_table(
            f"{contents.name}: {what}: {len(rows)}, {bad} of them refused",
            ("global", ""),
            ((name, "allowed" if allowed else "REFUSED") for name, allowed in rows),
        )
    if contents.graph is not None:
        facts = [(name, _graph_fact(value)) for name, value in contents.graph.items()]
        print_facts(f"{contents.name}: graph", facts)


def _graph_fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(f"{item['name']} {item['dtype']} {item['shape']}" for item in value)
    return cell(value)
