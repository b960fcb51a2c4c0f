"""``muelle api-key``: a key for a caller."""

from __future__ import annotations

import click

from muelle.cli.output import output_option, print_json
from service.auth import new_key


@click.command("api-key")
@click.argument("name")
@output_option
def api_key(name: str, output: str) -> None:
    """Make an API key for NAME: letters, digits, '.', '_' or '-'.

    The key is shown this once; hand it over and forget it. The line goes into the file that the server reads, see
    `muelle serve --api-keys`; it holds only the key's digest. The server sees a changed file within seconds.

    \b
    Example:
      muelle api-key billing --output json
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    key, line = new_key(name)
    if output == "json":
        print_json({"name": name, "key": key, "line": line})
        return
    click.echo(f"key, for the caller, shown only now:\n  {key}")
    click.echo(f"line, for the server's file of keys:\n  {line}")
