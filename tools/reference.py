"""Writes docs/reference/settings.md and docs/reference/commands.md from the code; ``make sync``, and CI checks them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from muelle.cli import main as muelle
from service.settings import describe

ROOT: Final = Path(__file__).resolve().parents[1]
REFERENCE: Final = ROOT / "docs" / "reference"
_WRITTEN: Final = "Written by `make sync` from the code."
_WIDTH: Final = 100

_SETTINGS: Final = f"""# Settings

{_WRITTEN} The same list: `muelle serve --settings`. In the chart `settings.maxRows` is
`MUELLE_MAX_ROWS`, and so on. An unknown variable that starts with `MUELLE_` stops start-up, as does a bad value.

| variable | expects | default | |
|---|---|---|---|
"""
_COMMANDS: Final = f"""# Commands

{_WRITTEN} The same texts: `muelle COMMAND --help`.
"""


def settings_page() -> str:
    """Return the table of all settings."""
    cells = ((f"`{key}`", kind, f"`{default}`" if default else "", why) for key, kind, default, why in describe())
    return _SETTINGS + "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in cells)


def commands_page() -> str:
    """Return every command's help text."""
    return _COMMANDS + "".join(f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in _helps())


def _helps() -> Iterator[tuple[str, str]]:
    wide: dict[str, Any] = {"resilient_parsing": True, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    with muelle.make_context("muelle", [], **wide) as context:
        yield "muelle", muelle.get_help(context)
        for name in muelle.list_commands(context):
            command = muelle.get_command(context, name)
            if command is not None:
                with command.make_context(name, [], context, resilient_parsing=True) as below:
                    yield f"muelle {name}", command.get_help(below)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages, or say that they are out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is out of date")
    check = parser.parse_args(arguments).check
    for name, page in (("settings.md", settings_page()), ("commands.md", commands_page())):
        path = REFERENCE / name
        if path.exists() and path.read_text("utf-8") == page:
            continue
        if check:
            sys.exit(f"{path.relative_to(ROOT)}: is not what the code says; run `make sync`")
        path.write_text(page, "utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
