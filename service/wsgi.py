"""What gunicorn calls in each worker to get its application."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flask import Flask
from prometheus_client import CollectorRegistry

from service.app import create_app, start
from service.metrics import Metrics
from service.models import Models
from service.procfs import ProcessGroup
from service.settings import Settings


def build() -> Flask:
    """Read the settings, start loading the models, and return the application."""
    # What numpy and scikit-learn warn of while they predict becomes a log line; as plain text it would break the log.
    logging.captureWarnings(True)
    settings = Settings.from_environ(os.environ)
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    metrics = Metrics(CollectorRegistry(), directory, ProcessGroup(directory, os.getppid()))
    models = Models(settings, metrics)
    app = create_app(settings, models, metrics)
    start(app)
    return app
