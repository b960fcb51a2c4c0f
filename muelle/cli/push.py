"""``muelle push``: a bundle into a store."""

from __future__ import annotations

import os
from pathlib import Path

import click

from muelle.cli.options import find_bundle, repository_option
from muelle.cli.output import note, output_option, print_json, printable
from muelle.cli.transfer import ending_at_once, store_options, watching
from muelle.store.push import push
from muelle.store.remote import Access
from muelle.store.source import Source


@click.command("push")
@click.argument("model")
@click.argument("url")
@repository_option
@store_options
@output_option
def push_command(model: str, url: str, repository: Path, retry_seconds: float, insecure: bool, output: str) -> None:
    """Push MODEL, a bundle's PATH or a NAME[@VERSION], to URL, and print what `muelle fetch` takes: URL@sha256:HEX.

    The bundle is verified first. Its files go first and its manifest last, so that half of it is never a bundle. The
    same bundle at the URL is fine, another one is never overwritten. URLs and credentials are those of `muelle fetch`,
    but for https://, which can't be pushed to.

    \b
    Example:
      muelle push iris@2 s3://models/iris/2
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    path = find_bundle(model, repository)
    target = Source.parse(url)
    access = Access.from_environ(os.environ, insecure=insecure, retry_seconds=retry_seconds, push=True)
    with ending_at_once(), watching(str(target)) as progress:
        pushed = push(path, target, access, progress=progress)
    pinned = f"{pushed.source.url}@{pushed.source.digest}"
    if output == "json":
        facts = {"source": pinned, "url": pushed.source.url, "digest": pushed.source.digest}
        facts |= {"name": pushed.name, "version": pushed.version, "state": pushed.state}
        print_json(facts | {"size_bytes": pushed.size_bytes})
        return
    note(f"{pushed.name} {pushed.version}: {pushed.state}, {pushed.size_bytes} bytes")
    click.echo(printable(pinned))
