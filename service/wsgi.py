"""What each worker's application is made of."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

from flask import Flask
from prometheus_client import CollectorRegistry

from service.app import create_app, start
from service.auth import ApiKeys
from service.distributions import Distributions
from service.metrics import Metrics
from service.models import Models
from service.observations import Observations, Observer
from service.procfs import ProcessGroup
from service.selection import pinned
from service.settings import Settings


def build(settings: Settings, keys: ApiKeys | None, selection_file: Path) -> Flask:
    """Start loading the models, and return the application.

    Parameters
    ----------
    settings : Settings
        Of the server.
    keys : ApiKeys, optional
        As the arbiter has them.
    selection_file : Path
        Where the workers keep what they all serve.
    """
    # What numpy and scikit-learn warn of while they predict becomes a log line; as plain text it would break the log.
    logging.captureWarnings(True)
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    metrics = Metrics(CollectorRegistry(), directory, ProcessGroup(directory, os.getppid()))
    observers: list[Observer] = []
    if settings.drift:
        observers.append(Distributions(metrics.registry))
    observations = Observations(metrics, observers) if observers else None
    models = Models(settings, metrics, partial(pinned, settings, selection_file), observations)
    app = create_app(settings, models, metrics, keys)
    start(app)
    return app
