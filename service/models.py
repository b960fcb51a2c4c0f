"""The models that this process serves: each version loading, ready, or failed for a stated reason."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Literal

from muelle.errors import MuelleError, NotFoundError, NotReadyError
from muelle.inference import Predictor
from muelle.store import Repository
from service.metrics import Metrics, ModelMetrics
from service.settings import Settings

_log = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed"]


@dataclass(slots=True)
class ServedModel:
    """One version of one model.

    Attributes
    ----------
    predictor : Predictor, optional
        Set when ready.
    metrics : ModelMetrics
        Its children, labels resolved.
    reason : str
        Why it is not ready; empty when it is.
    """

    name: str
    version: str
    metrics: ModelMetrics
    state: State = "loading"
    reason: str = "loading"
    predictor: Predictor | None = None

    def ready_predictor(self) -> Predictor:
        """Return the predictor; raises `NotReadyError` with the reason when there is none."""
        if self.predictor is None:
            raise NotReadyError(f"{self.name} {self.version} is not ready: {self.reason}")
        return self.predictor


class Models:
    """All models of the repository.

    Parameters
    ----------
    settings : Settings
        Which folder, engine, default model, allowed modules.
    metrics : Metrics
        Where loads are counted and each model's children are made.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._models: dict[str, dict[str, ServedModel]] = {}
        #: What a request may name: (model, version), either None for the default.
        self._table: dict[tuple[str | None, str | None], ServedModel] = {}
        self._problem = "loading"
        self._thread: threading.Thread | None = None

    def start_loading(self) -> None:
        """Load in the background; `loading` says whether it goes on."""
        self._thread = threading.Thread(target=self.load, name="load-models", daemon=True)
        self._thread.start()

    @property
    def loading(self) -> bool:
        """Whether the background load goes on."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the background load has ended."""
        if self._thread is not None:
            self._thread.join()

    def load(self) -> None:
        """Find and load everything; a version that fails keeps its reason, and the others are served."""
        try:
            bundles = Repository(self._settings.models).bundles()
        except (MuelleError, OSError) as error:
            self._problem = str(error)
            _log.error("no models: %s", error)
            return
        for name, versions in bundles.items():
            self._models[name] = {
                version: ServedModel(name, version, self._metrics.for_model(name, version)) for version in versions
            }
        self._fill_table()
        self._problem = self._general_problem()
        for name, versions in bundles.items():
            for version, path in versions.items():
                self._load_one(self._models[name][version], path)

    def get(self, name: str | None, version: str | None) -> ServedModel:
        """Return what a request means; without a version the newest, without a name the default model.

        Raises
        ------
        NotFoundError
            When there is no such model or version, or none was named and several are served.
        NotReadyError
            When it isn't known yet what there is.
        """
        found = self._table.get((name, version))
        if found is not None:
            return found
        if not self._models:
            raise NotReadyError(self._problem)
        if name is None:
            known = ", ".join(self._models)
            raise NotFoundError(
                f"several models are served ({known}): use /models/NAME/predict, or set MUELLE_DEFAULT_MODEL"
            )
        if name not in self._models:
            raise NotFoundError(f"no model {name[:63]!r}; there is {', '.join(self._models)}")
        raise NotFoundError(f"no version {str(version)[:63]!r} of {name}; there is {', '.join(self._models[name])}")

    def references(self) -> list[tuple[str | None, str | None]]:
        """Return what `get` finds: (model, version), either None for a default; empty until that is known."""
        return list(self._table)

    def versions(self, name: str) -> list[str]:
        """Return a model's versions, oldest first; empty when there is no such model."""
        return list(self._models.get(name, ()))

    def all(self) -> list[ServedModel]:
        """Return every version of every model."""
        return [model for versions in self._models.values() for model in versions.values()]

    def newest(self) -> list[ServedModel]:
        """Return the version of each model that answers when none is named."""
        return [versions[next(reversed(versions))] for versions in self._models.values()]

    @property
    def default(self) -> ServedModel | None:
        """What answers when no model is named, if anything does."""
        return self._table.get((None, None))

    def problems(self) -> list[str]:
        """Return why this process is not ready; empty when it is."""
        if self._problem:
            return [self._problem]
        return [f"{model.name} {model.version}: {model.reason}" for model in self.all() if model.state != "ready"]

    def _fill_table(self) -> None:
        for name, versions in self._models.items():
            for version, model in versions.items():
                self._table[name, version] = model
            # Not the newest that works: silently serving an older one would hide a broken release.
            self._table[name, None] = model
        default = self._settings.default_model
        if default is None and len(self._models) == 1:
            default = next(iter(self._models))
        if default in self._models:
            self._table[None, None] = self._table[default, None]

    def _general_problem(self) -> str:
        if not self._models:
            return f"{self._settings.models} holds no models; make one with `muelle bundle` or `muelle train`"
        wanted = self._settings.default_model
        if wanted is not None and wanted not in self._models:
            return f"MUELLE_DEFAULT_MODEL: no model {wanted!r}; there is {', '.join(self._models)}"
        return ""

    def _load_one(self, model: ServedModel, path: object) -> None:
        started = time.perf_counter()
        try:
            predictor = Predictor.load(
                str(path), engine=self._settings.engine, allowed_modules=self._settings.allowed_modules
            )
            found = (predictor.manifest.name, predictor.manifest.version)
            if found != (model.name, model.version):
                raise NotReadyError(f"its manifest says it is {found[0]} {found[1]}")
        except Exception as error:  # noqa: BLE001  # whatever a model does while it loads, the others are served
            known = isinstance(error, MuelleError)
            model.state = "failed"
            model.reason = str(error) if known else f"{type(error).__name__} while loading"
            model.metrics.load_failed()
            _log.error(
                "not loaded: %s",
                model.reason,
                exc_info=not known,
                extra={"model": model.name, "version": model.version},
            )
            return
        model.predictor = predictor
        model.reason = ""
        model.state = "ready"
        seconds = time.perf_counter() - started
        model.metrics.loaded(predictor.engine, predictor.digest, seconds)
        _log.info(
            "loaded with %s in %.3f s", predictor.engine, seconds, extra={"model": model.name, "version": model.version}
        )
