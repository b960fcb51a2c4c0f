"""A repository in a folder: ``REPOSITORY/NAME/VERSION/manifest.json``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from muelle.bundle.manifest import MANIFEST, NAME
from muelle.errors import NotFoundError


class Repository:
    """The models and versions in a folder.

    Names with a leading dot, such as a killed writer's temporary folders, are passed over. A folder that itself is a
    bundle is a repository of one: it makes ``muelle serve --models path/to/bundle`` and a mounted single bundle work.

    Parameters
    ----------
    path : path
        The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def bundles(self) -> dict[str, dict[str, Path]]:
        """Return each model's versions, oldest first, with their folders.

        A version's folder counts even when its manifest is missing: the reader then says what is wrong with it.

        Raises
        ------
        NotFoundError
            When there is no such folder.
        """
        if not self.path.is_dir():
            raise NotFoundError(f"{self.path}: no such folder of models")
        if (self.path / MANIFEST).is_file():
            return _single(self.path)
        found = {}
        for model in sorted(_folders(self.path)):
            versions = sorted(_folders(model), key=lambda folder: version_key(folder.name))
            if versions:
                found[model.name] = {folder.name: folder for folder in versions}
        return found

    def find(self, reference: str) -> Path:
        """Return the folder of ``NAME@VERSION``, or of ``NAME``'s newest version.

        Raises
        ------
        NotFoundError
            When there is no such model or version; says which there are.
        """
        name, _, version = reference.partition("@")
        bundles = self.bundles()
        if name not in bundles:
            known = ", ".join(bundles) or "none"
            raise NotFoundError(f"no model {name!r} in {self.path}; there is {known}")
        versions = bundles[name]
        if not version:
            return versions[next(reversed(versions))]
        if version not in versions:
            raise NotFoundError(f"no version {version!r} of {name}; there is {', '.join(versions)}")
        return versions[version]


def version_key(version: str) -> tuple[Any, ...]:
    """Return a sort key in which 2 < 10, 1.9 < 1.10 and 1.0rc1 < 1.0 < 1.0.1; words come before numbers."""
    parts = re.findall(r"\d+|[^\d._-]+", version)
    keys = [(2, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
    # The end lies between a word and a number; versions that differ in separators only still have an order.
    return (*keys, (1, 0, "")), version


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if NAME.fullmatch(entry.name) and entry.is_dir()]


def _single(path: Path) -> dict[str, dict[str, Path]]:
    from muelle.bundle.manifest import Manifest
    from muelle.bundle.reader import read_manifest_bytes
    from muelle.errors import BundleError

    try:
        manifest = Manifest.from_bytes(read_manifest_bytes(path))
    except BundleError:
        # The service must be able to say what is wrong with it, so it needs some name.
        return {"unreadable": {"0": path}}
    return {manifest.name: {manifest.version: path}}
