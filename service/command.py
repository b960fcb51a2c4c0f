"""The command that starts the service."""

from __future__ import annotations

import sys
from pathlib import Path


def gunicorn_command() -> list[str]:
    """Return gunicorn's command line; everything else comes from ``MUELLE_*``."""
    return [sys.executable, "-m", "gunicorn", "-c", str(Path(__file__).with_name("gunicorn.conf.py"))]
