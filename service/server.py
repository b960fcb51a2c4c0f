"""The server's main module: gunicorn's application with our arbiter; ``muelle serve`` starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flask import Flask
from gunicorn.app.wsgiapp import WSGIApplication

from muelle.errors import SettingsError
from service.arbiter import Arbiter
from service.auth import ApiKeys
from service.companions import Companion, Companions
from service.metrics_server import metrics_companion
from service.settings import Settings
from service.shipper import check_prediction_log, shipper_companion
from service.tracing import check_tracing, is_wanted
from service.wsgi import build


class Application(WSGIApplication):  # type: ignore[misc]  # gunicorn has no types
    """What the arbiter holds and every worker inherits when it is forked.

    So all workers start from the same keys, the last good ones, and serve the same bundles, whenever they are forked.

    Parameters
    ----------
    settings : Settings
        Read once.

    Raises
    ------
    SettingsError
        When the file of API keys can't be read, or traces are asked for that can't be made.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        if is_wanted(settings, os.environ):
            check_tracing(os.environ)
        check_prediction_log(settings)
        self._keys = None if settings.api_keys_file is None else ApiKeys(settings.api_keys_file)
        self._generation = 0
        # Each worker is told its own after the fork.
        self.slot = 0
        super().__init__("muelle serve")

    def load(self) -> Flask:
        """Make the application, in a worker."""
        return build(self._settings, self._keys, self._selection_file(), self.slot)

    def look_at_keys(self) -> None:
        """Keep the keys up to date, in the arbiter: a worker that is forked when the file is broken has these."""
        if self._keys is not None:
            self._keys.look()

    def forget_selection(self) -> None:
        """Let the workers that are forked from now on look into the repository anew."""
        self._selection_file().unlink(missing_ok=True)
        # Another name: a worker that was forked before may be about to write the old one.
        self._generation += 1

    def run(self) -> None:
        """Be the arbiter, until the end.

        Raises
        ------
        SettingsError
            When the metrics' own port can't be had.
        """
        directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        Arbiter(self, Companions(_companions(self._settings, directory), directory)).run()

    def _selection_file(self) -> Path:
        return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) / f"selection-{self._generation}.json"


def main() -> None:
    """Serve with the settings in the environment."""
    try:
        Application(Settings.from_environ(os.environ)).run()
    except SettingsError as error:
        sys.exit(f"Error: {error}")


def _companions(settings: Settings, directory: Path) -> list[Companion]:
    """Return what runs beside the workers; a port that can't be had is a SettingsError."""
    found = []
    if settings.metrics_port is not None:
        if settings.metrics_port == settings.port:
            raise SettingsError(
                f"MUELLE_METRICS_PORT: expected another port than the server's own, got {settings.port}"
            )
        found.append(metrics_companion(settings.host, settings.metrics_port, directory))
    if settings.prediction_log is not None:
        found.append(shipper_companion(settings, directory))
    return found


if __name__ == "__main__":
    main()
