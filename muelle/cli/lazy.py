"""A click group whose commands are imported when they are called, and whose errors are one clear line."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final, cast

import click

from muelle.cli.output import printable
from muelle.errors import MuelleError

#: Package → the extra of Muelle that brings it, for installations that only serve ONNX bundles.
_EXTRAS: Final = {
    "joblib": "sklearn",
    "kubernetes": "operate",
    "obstore": "store",
    "onnx": "train",
    "pandas": "sklearn",
    "pyarrow": "train",
    "scipy": "sklearn",
    "skl2onnx": "train",
    "sklearn": "sklearn",
    "skops": "skops",
}


class LazyGroup(click.Group):
    """A group that knows its commands' places and help lines without importing them.

    Parameters
    ----------
    commands_at : mapping
        Command name to ``package.module:attribute`` and the line that ``--help`` shows.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the mapping: the order in which one needs them."""
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is no such."""
        if cmd_name not in self.commands_at:
            return None
        module, _, attribute = self.commands_at[cmd_name][0].partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise _missing_package(error) from error
        return cast("click.Command", command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' help lines from the mapping."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.commands_at.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what goes wrong on purpose is told without a traceback, with exit code 1."""
        try:
            return super().invoke(ctx)
        except MuelleError as error:
            raise click.ClickException(printable(str(error), keep="\n")) from error
        except ModuleNotFoundError as error:
            raise _missing_package(error) from error


def _missing_package(error: ModuleNotFoundError) -> Exception:
    """Return how to install what is missing, or the error itself when it is not one of our optional packages."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return error
    return click.ClickException(
        f"this needs {package}, which is not installed: pip install 'muelle[{_EXTRAS[package]}]'"
    )
