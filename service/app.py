"""The composition root: settings, models and metrics become one Flask application."""

from __future__ import annotations

from dataclasses import dataclass

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
from service.routes import health, metrics_page, oip, openapi, predictions, status
from service.settings import Settings


@dataclass(frozen=True)
class Service:
    """What the routes work with.

    Attributes
    ----------
    keys : ApiKeys, optional
        None when everybody may ask.
    access_log : AccessLog, optional
        None when requests are not logged.
    """

    settings: Settings
    models: Models
    metrics: Metrics
    keys: ApiKeys | None
    access_log: AccessLog | None
    pressure: Pressure


class _NoSession(SessionInterface):
    """There are no cookies here, so no time is spent on looking for one."""

    def open_session(self, app: Flask, request: object) -> SessionMixin | None:
        return None


def create_app(settings: Settings, models: Models, metrics: Metrics, keys: ApiKeys | None = None) -> Flask:
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

    Raises
    ------
    SettingsError
        When the file of API keys can't be read.
    """
    if keys is None and settings.api_keys_file is not None:
        keys = ApiKeys(settings.api_keys_file)
    access_log = AccessLog() if settings.access_log else None
    service = Service(settings, models, metrics, keys, access_log, Pressure(settings.max_concurrency))
    app = Flask("muelle", static_folder=None)
    app.session_interface = _NoSession()
    app.extensions["muelle"] = service
    for routes in (health, metrics_page, oip, openapi, predictions, status):
        app.register_blueprint(routes.blueprint(service))
    register_error_handlers(app)
    app.wsgi_app = Observed(FastLane(app.wsgi_app, service), metrics, access_log)  # type: ignore[method-assign]
    return app


def start(app: Flask) -> None:
    """Start the background work of a worker: loading, and carrying over counts and log lines."""
    service: Service = app.extensions["muelle"]
    service.metrics.start()
    if service.access_log is not None:
        service.access_log.start()
    service.models.start_loading()


def stop(app: Flask) -> None:
    """Carry over the last counts and log lines."""
    service: Service = app.extensions["muelle"]
    service.metrics.close()
    if service.access_log is not None:
        service.access_log.close()
