"""What each worker's application is made of."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask
from prometheus_client import CollectorRegistry

from service.app import create_app, start
from service.auth import ApiKeys
from service.distributions import Distributions
from service.feedback import Feedback
from service.feedback_metrics import FeedbackMetrics
from service.feedback_peers import Peers
from service.memory import Memory
from service.metrics import Metrics
from service.models import Models
from service.observations import Observations, Observer
from service.prediction_log import PredictionLog
from service.procfs import ProcessGroup
from service.selection import pinned
from service.settings import Settings
from service.tracing import is_wanted

if TYPE_CHECKING:
    from service.spans import Tracing

_log = logging.getLogger(__name__)


def build(settings: Settings, keys: ApiKeys | None, selection_file: Path, slot: int) -> Flask:
    """Start loading the models, and return the application.

    Parameters
    ----------
    settings : Settings
        Of the server.
    keys : ApiKeys, optional
        As the arbiter has them.
    selection_file : Path
        Where the workers keep what they all serve.
    slot : int
        The worker's.
    """
    # What numpy and scikit-learn warn of while they predict becomes a log line; as plain text it would break the log.
    logging.captureWarnings(True)
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    metrics = Metrics(CollectorRegistry(), directory, ProcessGroup(directory, os.getppid()))
    observers: list[Observer] = []
    if settings.drift:
        observers.append(Distributions(metrics.registry))
    prediction_log = PredictionLog(settings, metrics, directory, slot) if settings.prediction_log is not None else None
    if prediction_log is not None:
        observers.append(prediction_log)
    observations = Observations(metrics, observers) if observers else None
    feedback = _feedback(settings, metrics, directory, slot)
    models = Models(settings, metrics, partial(pinned, settings, selection_file), observations, feedback)
    app = create_app(settings, models, metrics, keys, _tracing(settings, metrics), feedback, prediction_log)
    start(app)
    return app


def _tracing(settings: Settings, metrics: Metrics) -> Tracing | None:
    if not is_wanted(settings, os.environ):
        return None
    # An extra; the arbiter has seen to it that it is there.
    from service.spans import Tracing

    return Tracing(metrics)


def _feedback(settings: Settings, metrics: Metrics, directory: Path, slot: int) -> Feedback | None:
    if not settings.feedback_rows:
        return None
    counted = FeedbackMetrics(metrics.registry)
    name = settings.feedback_peers
    peers = None if name is None else Peers(name, (settings.host, settings.port), counted)
    try:
        return Feedback(counted, Memory(directory, slot, settings.feedback_rows), directory / "feedback.lock", peers)
    except OSError as error:
        # No room in the metrics folder: it answers all the same.
        _log.error("no labels are taken: %s", error)
        return None
