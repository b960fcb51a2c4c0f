"""``muelle fetch``: bundles from a store into a folder, verified."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from muelle.cli.output import note, output_option, print_json, print_table
from muelle.cli.transfer import ending_at_once, store_options, watching
from muelle.store.fetch import Fetched, fetch
from muelle.store.remote import Access
from muelle.store.source import Source, parse_sources


@click.command("fetch")
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option(
    "--to",
    "repository",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder that the bundles go to, each as NAME/VERSION; made when missing.",
)
@store_options
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=16 * 1024**3,
    show_default=True,
    help="How large a bundle's files together may be.",
)
@output_option
@click.pass_context
def fetch_command(
    ctx: click.Context,
    sources: tuple[str, ...],
    repository: Path,
    retry_seconds: float,
    insecure: bool,
    max_bytes: int,
    output: str,
) -> None:
    """Fetch bundles from SOURCEs: each URL or URL@sha256:HEX.

    The digest is the bundle's, as `muelle push` and `muelle inspect` print it. With it, only that very bundle is taken,
    and the store isn't asked for one that is there already. Every file is verified before the bundle appears as
    NAME/VERSION; nothing of it is loaded. Without SOURCEs, they are the lines of MUELLE_FETCH, each URL DIGEST.

    \b
    URLs name a bundle's folder, or the artefact:
      s3://BUCKET/PATH       AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_REGION, …
      gs://BUCKET/PATH       GOOGLE_APPLICATION_CREDENTIALS, …
      az://CONTAINER/PATH    AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, …
      https://HOST/PATH      MUELLE_FETCH_AUTHORIZATION, the header's value
      oci://HOST/REPO:TAG    Docker's config.json, or MUELLE_REGISTRY_USERNAME and
                             MUELLE_REGISTRY_PASSWORD
      file:///PATH

    \b
    Example:
      muelle fetch --to models s3://models/iris/2@sha256:0123…
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    access = Access.from_environ(os.environ, insecure=insecure, retry_seconds=retry_seconds)
    wanted = [Source.parse(text) for text in sources] or parse_sources(os.environ.get("MUELLE_FETCH", ""))
    if not wanted:
        raise click.UsageError("no SOURCE is given, and MUELLE_FETCH names none", ctx)
    with ending_at_once():
        found = [_fetch_one(source, repository, access, max_bytes) for source in wanted]
    if output == "json":
        print_json([_facts(item) for item in found])
        return
    print_table(
        "",
        ("model", "version", "state", "bytes", "digest", "path"),
        ((item.name, item.version, item.state, item.size_bytes, item.digest, str(item.path)) for item in found),
    )


def _fetch_one(source: Source, repository: Path, access: Access, max_bytes: int) -> Fetched:
    with watching(str(source)) as progress:
        found = fetch(source, repository, access, max_bytes=max_bytes, progress=progress)
    if source.digest is None:
        note(f"{source}: taken as it is; to take only this very bundle, write {source}@{found.digest}")
    return found


def _facts(found: Fetched) -> dict[str, Any]:
    return {
        "source": str(found.source),
        "name": found.name,
        "version": found.version,
        "digest": found.digest,
        "path": str(found.path),
        "state": found.state,
        "size_bytes": found.size_bytes,
    }
