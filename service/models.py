"""The models that this process serves: each version loading, ready, or failed for a stated reason."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from muelle.errors import MuelleError, NotFoundError, NotReadyError
from muelle.inference import Predictor
from service.feedback import Feedback
from service.memory import ModelMemory
from service.metrics import Metrics, ModelMetrics
from service.observations import ModelObservations, Observations
from service.selection import Selection, Version, select
from service.settings import Settings

_log = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed"]
#: Model and version, either None for a default.
Reference = tuple[str | None, str | None]
#: What is said until it is known what there is.
_LOADING: Final = ("loading",)


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
    observations : ModelObservations, optional
        What gathers its rows and answers, for drift and the prediction log; None when nobody wants them.
    memory : ModelMemory, optional
        What remembers its answers, for labels that come later; None when there are none to come.
    """

    name: str
    version: str
    metrics: ModelMetrics
    state: State = "loading"
    reason: str = "loading"
    predictor: Predictor | None = None
    observations: ModelObservations | None = None
    memory: ModelMemory | None = None

    def ready_predictor(self) -> Predictor:
        """Return the predictor; raises `NotReadyError` with the reason when there is none."""
        if self.predictor is None:
            raise NotReadyError(f"{self.name} {self.version} is not ready: {self.reason}")
        return self.predictor


Table = dict[Reference, ServedModel]


class Models:
    """All models that are served.

    Parameters
    ----------
    settings : Settings
        Which folder, models, default model, engine, allowed modules.
    metrics : Metrics
        Where loads are counted and each model's children are made.
    find : callable, optional
        Returns what is to be served; without it the repository is looked into.
    observations : Observations, optional
        What gathers rows and answers; None for nothing.
    feedback : Feedback, optional
        What remembers answers for labels; None for nothing.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        find: Callable[[], Selection] | None = None,
        observations: Observations | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        self._settings = settings
        self._find = find or partial(select, settings)
        self._metrics = metrics
        self._observations = observations
        self._feedback = feedback
        self._models: dict[str, dict[str, ServedModel]] = {}
        #: What a request may name.
        self._table: Table = {}
        self._problems: tuple[str, ...] = _LOADING
        self._thread: threading.Thread | None = None

    def start_loading(self) -> None:
        """Load in the background; `loading` says whether it goes on."""
        self._thread = threading.Thread(target=self.load, name="load-models", daemon=True)
        self._thread.start()

    @property
    def loading(self) -> bool:
        """Whether the background load goes on, so that something may yet become ready."""
        # A thread that broke off has nothing more to bring; one that has told of its last model has, too.
        if self._thread is None or not self._thread.is_alive():
            return False
        return self._problems == _LOADING or any(model.state == "loading" for model in self.all())

    def wait(self) -> None:
        """Wait until the background load has ended."""
        if self._thread is not None:
            self._thread.join()

    def load(self) -> None:
        """Find and load everything; a version that fails keeps its reason, and the others are served."""
        try:
            selection = self._find()
        except (MuelleError, OSError) as error:
            self._problems = (str(error),)
            self._metrics.for_model().load_failed()
            _log.error("no models: %s", error)
            return
        models = {
            name: {version: ServedModel(name, version, self._metrics.for_model(name, version)) for version in versions}
            for name, versions in selection.models.items()
        }
        # Each whole, and in this order, the reverse of that in which they are read: who sees the models finds them in
        # the table, and who doesn't see "loading" any more sees them. The fast lane learns its paths from the table.
        self._table = _table_of(models, selection.default)
        self._models = models
        self._problems = selection.problems
        for problem in selection.problems:
            self._metrics.for_model().load_failed()
            _log.error("not ready: %s", problem)
        for name, versions in selection.models.items():
            for version, found in versions.items():
                self._load_one(models[name][version], found)

    def get(self, name: str | None, version: str | None) -> ServedModel:
        """Return what a request means; without a version the newest, without a name the default model.

        Raises
        ------
        NotFoundError
            When there is no such model or version, or none was named and several are served.
        NotReadyError
            When it isn't known yet what there is.
        """
        models = self._models
        found = self._table.get((name, version))
        if found is not None:
            return found
        if not models:
            raise NotReadyError("; ".join(self._problems))
        if name is None:
            known = ", ".join(models)
            raise NotFoundError(
                f"several models are served ({known}): use /models/NAME/predict, or set MUELLE_DEFAULT_MODEL"
            )
        if name not in models:
            raise NotFoundError(f"no model {name[:63]!r}; there is {', '.join(models)}")
        raise NotFoundError(f"no version {str(version)[:63]!r} of {name}; there is {', '.join(models[name])}")

    def references(self) -> list[Reference]:
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
        general = self._problems
        failed = [f"{model.name} {model.version}: {model.reason}" for model in self.all() if model.state != "ready"]
        return [*general, *failed]

    def _load_one(self, model: ServedModel, version: Version) -> None:
        started = time.perf_counter()
        try:
            if version.reason:
                raise NotReadyError(version.reason)
            predictor = Predictor.load(
                version.path, engine=self._settings.engine, allowed_modules=self._settings.allowed_modules
            )
            if predictor.digest != version.digest:
                raise NotReadyError(
                    f"{version.path} has changed: expected {version.digest}, found {predictor.digest}; "
                    "SIGHUP loads what is there now"
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
        # Before it can answer, so that its first rows are counted.
        model.observations = self._observe(model, predictor)
        model.memory = self._remember(model, predictor)
        model.predictor = predictor
        model.reason = ""
        model.state = "ready"
        seconds = time.perf_counter() - started
        model.metrics.loaded(predictor.engine, predictor.digest, seconds)
        _log.info(
            "loaded with %s in %.3f s", predictor.engine, seconds, extra={"model": model.name, "version": model.version}
        )

    def _observe(self, model: ServedModel, predictor: Predictor) -> ModelObservations | None:
        if self._observations is None:
            return None
        try:
            return self._observations.of(model.name, model.version, predictor.signature, predictor.profile)
        except OSError as error:
            # No room for its series in the metrics folder: it answers all the same.
            _log.error("%s %s is not observed: %s", model.name, model.version, error)
            return None

    def _remember(self, model: ServedModel, predictor: Predictor) -> ModelMemory | None:
        if self._feedback is None:
            return None
        try:
            return self._feedback.of(predictor)
        except OSError as error:
            # No room for its series in the metrics folder: it answers all the same.
            _log.error("%s %s takes no labels: %s", model.name, model.version, error)
            return None


def _table_of(models: Mapping[str, Mapping[str, ServedModel]], default: str | None) -> Table:
    """Return what a request may name."""
    table: Table = {}
    for name, versions in models.items():
        for version, model in versions.items():
            table[name, version] = model
        # Not the newest that works: silently serving an older one would hide a broken release.
        table[name, None] = model
    if default is not None:
        table[None, None] = table[default, None]
    return table
