"""What is to be served: which of the repository's versions, and which model where a request names none.

All workers serve the same. The first one to look into the repository writes down what it found, with digests, and every
later one, also one that takes a dead one's place days later, goes by that. A version that has come since is served
after a SIGHUP, by all workers; one that has changed or gone fails, with that reason, in the worker that finds it so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from muelle.bundle.files import sha256
from muelle.bundle.reader import read_manifest_bytes
from muelle.errors import BundleError, SettingsError
from muelle.store import Repository, version_key
from service.settings import Settings

_log = logging.getLogger(__name__)

Bundles = Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True)
class Version:
    """One version that is to be served.

    Attributes
    ----------
    path : str
        Its folder; empty when there is none.
    digest : str
        Of the bundle that was found there; empty when it could not be read.
    reason : str
        Why it can't be served; empty when nothing is known to be in the way.
    """

    path: str
    digest: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Selection:
    """All that is to be served.

    Attributes
    ----------
    models : mapping
        Each model's versions, oldest first.
    default : str, optional
        The model that answers where a request names none.
    problems : tuple of str
        What is wrong beside single versions, so that the process is not ready.
    """

    models: Mapping[str, Mapping[str, Version]]
    default: str | None
    problems: tuple[str, ...]


def select(settings: Settings) -> Selection:
    """Look into the repository.

    Raises
    ------
    NotFoundError
        There is no folder of models.
    OSError
        It can't be read.
    """
    repository = Repository.first_of(settings.models)
    bundles = repository.bundles()
    chosen, problems = _chosen(bundles, settings.serve, repository.path)
    if not bundles:
        problems.append(f"{repository.path} holds no models; make one with `muelle bundle` or `muelle train`")
    default = None
    if chosen:
        try:
            default = _default(settings.default_model, repository, bundles, chosen)
        except SettingsError as error:
            problems.append(str(error))
    return Selection(chosen, default, tuple(problems))


def pinned(settings: Settings, path: Path) -> Selection:
    """Return what the file says, after writing it if nobody has yet; raises as `select` does.

    An empty selection is not written down: nothing of it can be served, and models may yet come.
    """
    if path.exists():
        return _read(path)
    selection = select(settings)
    if not selection.models:
        return selection
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(orjson.dumps(selection))
        # Unlike a rename, this fails when another worker was faster.
        os.link(fresh, path)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        _log.warning("a worker that is replaced may serve other versions than its siblings: %s", error)
    finally:
        fresh.unlink(missing_ok=True)
    return selection


def _read(path: Path) -> Selection:
    document = orjson.loads(path.read_bytes())
    models = {
        name: {version: Version(**found) for version, found in versions.items()}
        for name, versions in document["models"].items()
    }
    return Selection(models, document["default"], tuple(document["problems"]))


def _chosen(bundles: Bundles, serve: tuple[str, ...], folder: Path) -> tuple[dict[str, dict[str, Version]], list[str]]:
    """Return the versions that are asked for, all of them when nothing is, and what is wrong with the asking."""
    wanted: dict[str, set[str]] = {} if serve else {name: set(versions) for name, versions in bundles.items()}
    problems = []
    for reference in serve:
        name, _, version = reference.partition("@")
        if version:
            wanted.setdefault(name, set()).add(version)
        elif name in bundles:
            wanted.setdefault(name, set()).update(bundles[name])
        else:
            problems.append(f"MUELLE_SERVE: no model {name!r} in {folder}; there is {', '.join(bundles) or 'none'}")
    found = {}
    for name, versions in sorted(wanted.items()):
        there = bundles.get(name, {})
        # A version that isn't there keeps its place: were an older one to answer instead, nobody would notice.
        missing = Version("", reason=f"named by MUELLE_SERVE, but not in {folder}; there is {_known(bundles, name)}")
        found[name] = {
            version: _version(there[version]) if version in there else missing
            for version in sorted(versions, key=version_key)
        }
    return found, problems


def _version(path: Path) -> Version:
    try:
        return Version(str(path), digest=f"sha256:{sha256(read_manifest_bytes(path))}")
    except BundleError as error:
        return Version(str(path), reason=str(error))


def _known(bundles: Bundles, name: str) -> str:
    if name in bundles:
        return f"{name} {', '.join(bundles[name])}"
    return ", ".join(bundles) or "no model"


def _default(
    wanted: str | None, repository: Repository, bundles: Bundles, chosen: Mapping[str, Mapping[str, Version]]
) -> str | None:
    """Return the model that answers where none is named; raises `SettingsError` when what should isn't there."""
    served = ", ".join(chosen)
    if wanted is not None:
        if wanted not in chosen:
            raise SettingsError(f"MUELLE_DEFAULT_MODEL: no model {wanted!r}; there is {served}")
        return wanted
    if len(chosen) == 1:
        return next(iter(chosen))
    named = repository.default_model()
    if named is None or named in chosen:
        return named
    if named not in bundles:
        raise SettingsError(f"{repository.path}/default-model: no model {named!r}; there is {', '.join(bundles)}")
    # Left out on purpose, by MUELLE_SERVE.
    _log.warning("no default model: %s/default-model names %s, served are %s", repository.path, named, served)
    return None
