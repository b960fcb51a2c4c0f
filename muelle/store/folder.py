"""A repository in a folder: ``REPOSITORY/NAME/VERSION/manifest.json``, and maybe ``REPOSITORY/default-model``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from muelle.bundle.manifest import MANIFEST, NAME
from muelle.errors import NotFoundError, SettingsError

#: A text file beside the models: the name of the one that answers where a request names none.
DEFAULT_MODEL: Final = "default-model"
_DEFAULT_MODEL_LIMIT_BYTES: Final = 256


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

    @classmethod
    def first_of(cls, folders: Sequence[Path]) -> Repository:
        """Return the repository in the first of these folders that exists, also when it is empty.

        Raises
        ------
        NotFoundError
            When none of them exists.
        """
        found = first_existing(folders)
        if found is None:
            raise NotFoundError(f"{', '.join(map(str, folders))}: no such folder of models")
        return cls(found)

    def default_model(self) -> str | None:
        """Return the name in the repository's file ``default-model``; None when there is no such file.

        Raises
        ------
        SettingsError
            When the file can't be read or holds something else than one name.
        """
        path = self.path / DEFAULT_MODEL
        try:
            with path.open("rb") as file:
                text = file.read(_DEFAULT_MODEL_LIMIT_BYTES + 1).decode("utf-8", "replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SettingsError(f"{path}: can't be read: {error.strerror}") from error
        if NAME.fullmatch(text) is None:
            raise SettingsError(f"{path}: expected a model's name, got {text[:63]!r}")
        return text

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


def search_list(text: str) -> tuple[Path, ...]:
    """Return the folders in a search list such as ``/models:/opt/muelle/demo``; ValueError when one has no name."""
    folders = text.split(os.pathsep)
    if "\0" in text or not all(folder.strip() for folder in folders):
        raise ValueError(text)
    return tuple(Path(folder) for folder in folders)


def first_existing(folders: Sequence[Path]) -> Path | None:
    """Return the first of these that exists, whatever it is and whether or not it may be read."""
    for folder in folders:
        try:
            folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            # It is there. Passing on to the next would hide what is wrong with it.
            return folder
        return folder
    return None


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
