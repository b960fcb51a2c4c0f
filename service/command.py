"""The command that starts the service."""

from __future__ import annotations

import sys
from pathlib import Path


def gunicorn_command() -> list[str]:
    """Return gunicorn's command line; everything else comes from ``MUELLE_*``.

    ``-P``: a folder called ``service`` where the user happens to stand must not be taken for ours.
    """
    return [sys.executable, "-P", "-m", "service.server", "-c", str(Path(__file__).with_name("gunicorn.conf.py"))]
