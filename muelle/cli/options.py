"""Options and arguments that several commands share."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from muelle.bundle.manifest import MANIFEST
from muelle.errors import NotFoundError
from muelle.store import Repository, first_existing, search_list, version_key

F = TypeVar("F", bound=Callable[..., Any])

ENGINES: Final = ("auto", "onnx", "joblib", "skops")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def repository_option(command: F) -> F:
    """Add ``--repository``."""
    return click.option(
        "--repository",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("models"),
        show_default=True,
        envvar="MUELLE_MODELS",
        show_envvar=True,
        callback=_chosen_folder,
        help=f"Folder of all models: REPOSITORY/NAME/VERSION; of several, with {os.pathsep!r} between, the first "
        "that exists.",
    )(command)


def engine_option(command: F) -> F:
    """Add ``--engine``."""
    return click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="What runs the model; auto takes the bundle's first, which is ONNX when it has it.",
    )(command)


def allow_module_option(command: F) -> F:
    """Add ``--allow-module``, several times if need be."""
    return click.option(
        "--allow-module",
        "allowed_modules",
        metavar="MODULE",
        multiple=True,
        callback=_check_modules,
        help="Python module that the model's file may import besides scikit-learn's and numpy's own; repeat for more. "
        "It is looked for in the current folder too. Only name modules that you trust.",
    )(command)


def find_bundle(reference: str, repository: Path) -> Path:
    """Return the folder that a ``PATH`` or ``NAME[@VERSION]`` means.

    A path is a bundle's folder, or a model's folder in a repository, which means its newest version.

    Raises
    ------
    NotFoundError
        When there is no such path, model or version.
    """
    path = Path(reference)
    is_path = os.sep in reference or reference in (".", "..")
    if is_path and not path.exists():
        raise NotFoundError(f"{reference}: no such file or folder")
    if is_path or (path / MANIFEST).is_file():
        return _newest_inside(path)
    return Repository(repository).find(reference)


def _newest_inside(path: Path) -> Path:
    if not path.is_dir() or (path / MANIFEST).is_file():
        return path
    versions = [entry.parent for entry in path.glob(f"*/{MANIFEST}") if not entry.parent.name.startswith(".")]
    return max(versions, key=lambda folder: version_key(folder.name), default=path)


def _chosen_folder(ctx: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Return what a search list means; where nothing is yet, a command that writes makes the first."""
    try:
        folders = search_list(str(value))
    except ValueError:
        raise click.BadParameter(f"expected folders with {os.pathsep!r} between, got {str(value)!r}") from None
    return first_existing(folders) or folders[0]


def _check_modules(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for module in value:
        if _MODULE.fullmatch(module) is None:
            raise click.BadParameter(f"expected a module's name such as my_package.features, got {module!r}")
    here = str(Path.cwd())
    if value and here not in sys.path:
        # Last, so that a file here never stands in for an installed module.
        sys.path.append(here)
    return value
