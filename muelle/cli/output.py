"""What commands print: tables for people, JSON for programs, progress on standard error."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from muelle.bundle.files import write_file
from muelle.errors import MuelleError

if TYPE_CHECKING:
    from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

#: A table that goes into a file or a pipe is not folded.
_FILE_WIDTH: Final = 10_000


def output_option(command: F) -> F:
    """Add ``--output table|json``."""
    return click.option(
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="A table for people, or JSON on standard output for programs.",
    )(command)


def print_json(document: object) -> None:
    """Print a document as JSON; NaN and infinity, which JSON lacks, become null."""
    # ASCII, since a terminal's or pipe's encoding may not have the characters of a name.
    click.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns in which every cell is a number are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    listed = [list(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(listed) and all(_is_number(row[i]) for row in listed)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        # Text, not str: rich would take the brackets of features[0] for markup.
        table.add_row(*(Text(cell(value)) for value in row))
    _print(title, table)


def print_facts(title: str, facts: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one a line; values that are None are left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        if value is not None:
            table.add_row(name, Text(cell(value)))
    _print(title, table)


def note(message: str) -> None:
    """Print a line on standard error: something to know that is no error."""
    click.echo(printable(message), err=True)


def write_page(path: Path, page: str) -> None:
    """Write a page that was asked for, whole or not at all; where the path is a link, to what it means.

    Raises
    ------
    MuelleError
        When the file system refuses, or there is something else than a file, such as a device.
    """
    try:
        if path.exists() and not path.is_file():
            raise MuelleError(f"{path}: can't be written: it is there, and no regular file")
        target = path.resolve()
        # Not the page's own name and more: that may be as long as the file system allows.
        temporary = target.with_name(f".muelle-page.{os.getpid()}")
        try:
            write_file(temporary, [page.encode()])
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:  # Python up to 3.12 has the latter for links in a circle
        reason = getattr(error, "strerror", None) or str(error)
        raise MuelleError(f"{path}: can't be written: {reason}") from error
    note(f"wrote {path}")


@contextlib.contextmanager
def working(message: str) -> Iterator[None]:
    """Show that something takes its time, as long as a person watches."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(printable(message))):
        yield


def cell(value: object) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return printable(str(value), keep="\n")


def printable(text: str, keep: str = "") -> str:
    """Return a text without control characters: one that came from a file must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _print(title: str, table: Table) -> None:
    from rich.console import Console
    from rich.text import Text

    width = None if sys.stdout.isatty() else _FILE_WIDTH
    console = Console(width=width, highlight=False)
    if title:
        # Not the table's own title, which is folded to the table's width.
        console.print(Text(printable(title), style="bold"), soft_wrap=True)
    console.print(table)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
