"""The composition root: settings, models and metrics become one Flask application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Flask
from flask.sessions import SessionInterface, SessionMixin

from service.auth import ApiKeys
from service.errors import register_error_handlers
from service.exchange import Observed
from service.lane import FastLane
from service.logs import AccessLog
from service.metrics import Metrics
from service.models import Models
from service.pressure import Pressure
from service.routes import feedback as feedback_route
from service.routes import health, metrics_page, oip, openapi, predictions, status, ui
from service.settings import Settings

if TYPE_CHECKING:
    from service.feedback import Feedback
    from service.prediction_log import PredictionLog
    from service.spans import Tracing


@dataclass(frozen=True)
class Service:
    """What the routes work with.

    Attributes
    ----------
    keys : ApiKeys, optional
        None when everybody may ask.
    access_log : AccessLog, optional
        None when requests are not logged.
    tracing : Tracing, optional
        None when no traces are made.
    feedback : Feedback, optional
        None when no labels are taken, or none can be.
    prediction_log : PredictionLog, optional
        None when nothing is logged.
    """

    settings: Settings
    models: Models
    metrics: Metrics
    keys: ApiKeys | None
    access_log: AccessLog | None
    pressure: Pressure
    tracing: Tracing | None = None
    feedback: Feedback | None = None
    prediction_log: PredictionLog | None = None


class _NoSession(SessionInterface):
    """There are no cookies here, so no time is spent on looking for one."""

    def open_session(self, app: Flask, request: object) -> SessionMixin | None:
        return None


def create_app(
    settings: Settings,
    models: Models,
    metrics: Metrics,
    keys: ApiKeys | None = None,
    tracing: Tracing | None = None,
    feedback: Feedback | None = None,
    prediction_log: PredictionLog | None = None,
) -> Flask:
    """Put the application together.

    Parameters
    ----------
    settings : Settings
        Read once, by the caller.
    models : Models
        Loaded or still loading.
    metrics : Metrics
        Of this process.
    keys : ApiKeys, optional
        Those of the settings' file when it was read already.
    tracing : Tracing, optional
        Of this process.
    feedback : Feedback, optional
        Of this process; the models remember their answers for it.
    prediction_log : PredictionLog, optional
        Of this process; it is handed the labels.

    Raises
    ------
    SettingsError
        When the file of API keys can't be read.
    """
    if keys is None and settings.api_keys_file is not None:
        keys = ApiKeys(settings.api_keys_file)
    access_log = AccessLog() if settings.access_log else None
    pressure = Pressure(settings.max_concurrency)
    service = Service(settings, models, metrics, keys, access_log, pressure, tracing, feedback, prediction_log)
    app = Flask("muelle", static_folder=None)
    app.session_interface = _NoSession()
    app.extensions["muelle"] = service
    for routes in (health, metrics_page, oip, openapi, predictions, status):
        app.register_blueprint(routes.blueprint(service))
    if settings.feedback_rows:
        app.register_blueprint(feedback_route.blueprint(service))
    if settings.ui:
        app.register_blueprint(ui.blueprint(service))
    register_error_handlers(app)
    lane = FastLane(app.wsgi_app, service)
    app.wsgi_app = Observed(lane, metrics, access_log, tracing)  # type: ignore[method-assign]
    return app


def start(app: Flask) -> None:
    """Start the background work of a worker: loading, and carrying over counts and log lines."""
    service: Service = app.extensions["muelle"]
    service.metrics.start()
    if service.prediction_log is not None:
        service.prediction_log.start()
    if service.access_log is not None:
        service.access_log.start()
    service.models.start_loading()


def stop(app: Flask) -> None:
    """Carry over the last counts and log lines, and send the last traces."""
    service: Service = app.extensions["muelle"]
    service.metrics.close()
    if service.prediction_log is not None:
        # After the metrics, which have just handed it the last answers.
        service.prediction_log.close()
    if service.access_log is not None:
        service.access_log.close()
    if service.tracing is not None:
        # Last, since it may have to wait for others.
        service.tracing.close()
