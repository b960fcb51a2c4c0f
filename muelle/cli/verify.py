"""``muelle verify``: every check that a server makes before it is ready, one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import click

from muelle.bundle import Bundle, open_bundle
from muelle.bundle.engines import load_engine
from muelle.bundle.golden import check_golden
from muelle.bundle.manifest import ENGINE_FILES, Manifest
from muelle.bundle.reader import read_manifest_bytes
from muelle.bundle.skew import check_skew
from muelle.cli.options import allow_module_option, find_bundle, repository_option
from muelle.cli.output import output_option, print_json, print_table
from muelle.errors import MuelleError

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One check's result; `engine` is None for what concerns all of them."""

    check: str
    engine: str | None
    ok: bool
    detail: str


@click.command()
@click.argument("model")
@repository_option
@click.option(
    "--engine",
    "engines",
    type=click.Choice(list(ENGINE_FILES)),
    multiple=True,
    help="Check this engine only; repeat for more.  [default: every engine of the bundle]",
)
@allow_module_option
@output_option
@click.pass_context
def verify(
    ctx: click.Context,
    model: str,
    repository: Path,
    engines: tuple[str, ...],
    allowed_modules: tuple[str, ...],
    output: str,
) -> None:
    """Check MODEL, a bundle's PATH or a NAME[@VERSION], as a server does before it is ready.

    First the manifest and every file's digest; then for each engine the library versions, loading, and the golden
    outputs. Exits with 1 when anything is wrong.

    \b
    Example:
      muelle verify iris@1 --engine onnx
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    path = find_bundle(model, repository)
    checks: list[Check] = []
    bundle = _check_files(path, checks)
    if bundle is not None:
        for engine in engines or bundle.manifest.engines:
            _check_engine(bundle, engine, allowed_modules, checks)
    ok = all(check.ok for check in checks)
    if output == "json":
        print_json({"path": str(path), "ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        title = f"{path}: {'fine' if ok else 'NOT FINE'}"
        rows = ((check.check, check.engine or "", "ok" if check.ok else "FAILED", check.detail) for check in checks)
        print_table(title, ("check", "engine", "result", "detail"), rows)
    ctx.exit(0 if ok else 1)


def _try(
    checks: list[Check], name: str, engine: str | None, work: Callable[[], T], detail: Callable[[T], str]
) -> T | None:
    """Run one check and note its result; None when it failed."""
    try:
        result = work()
    except MuelleError as error:
        checks.append(Check(name, engine, False, str(error)))
        return None
    checks.append(Check(name, engine, True, detail(result)))
    return result


def _check_files(path: Path, checks: list[Check]) -> Bundle | None:
    manifest = _try(
        checks,
        "manifest",
        None,
        lambda: Manifest.from_bytes(read_manifest_bytes(path)),
        lambda found: f"{found.name} {found.version}, {found.estimator}",
    )
    if manifest is None:
        return None
    bundle = _try(
        checks, "digests", None, lambda: open_bundle(path), lambda found: f"{len(found.manifest.files)} files unaltered"
    )
    if bundle is None:
        return None
    profile = _try(checks, "profile", None, lambda: bundle.profile, lambda found: f"{found.rows} reference rows")
    golden = _try(checks, "golden rows", None, lambda: bundle.golden, lambda found: f"{len(found.inputs)} rows")
    return None if profile is None or golden is None else bundle


def _check_engine(bundle: Bundle, engine: str, allowed_modules: Sequence[str], checks: list[Check]) -> None:
    """Check one engine; what comes after a failure is left out, as a server would not get there."""
    manifest = bundle.manifest
    if engine not in manifest.engines:
        checks.append(Check("in the bundle", engine, False, f"the bundle has {', '.join(manifest.engines)}"))
        return

    def skew() -> list[str]:
        return check_skew(manifest.libraries, engine)

    if _try(checks, "libraries", engine, skew, lambda found: "; ".join(found) or "close enough") is None:
        return
    file = ENGINE_FILES[engine]
    loaded = _try(
        checks,
        "loading",
        engine,
        lambda: load_engine(engine, bundle.read(file), manifest.signature, allowed_modules),
        lambda _: file,
    )
    if loaded is None:
        return
    outputs = " and ".join(manifest.signature.output_names)
    _try(
        checks,
        "golden outputs",
        engine,
        lambda: check_golden(manifest.signature, bundle.golden, loaded),
        lambda _: f"{outputs} reproduced",
    )
