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
from service.settings import Settings
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
        When the file of API keys can't be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = None if settings.api_keys_file is None else ApiKeys(settings.api_keys_file)
        self._generation = 0
        super().__init__("muelle serve")

    def load(self) -> Flask:
        """Make the application, in a worker."""
        return build(self._settings, self._keys, self._selection_file())

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
        """Be the arbiter, until the end."""
        Arbiter(self).run()

    def _selection_file(self) -> Path:
        return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) / f"selection-{self._generation}.json"


def main() -> None:
    """Serve with the settings in the environment."""
    try:
        application = Application(Settings.from_environ(os.environ))
    except SettingsError as error:
        sys.exit(f"Error: {error}")
    application.run()


if __name__ == "__main__":
    main()
