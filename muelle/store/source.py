"""Where a bundle is, in one line: a URL, and the digest that it must have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from muelle.errors import StoreError

OBJECT_SCHEMES: Final = ("s3", "gs", "az")
HTTP_SCHEMES: Final = ("https", "http")
SCHEMES: Final = (*OBJECT_SCHEMES, *HTTP_SCHEMES, "oci", "file")

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """A bundle's place.

    Attributes
    ----------
    url : str
        The bundle's folder, or for ``oci://`` the artefact; without a slash at its end.
    digest : str, optional
        ``sha256:`` and 64 hex digits: what the bundle there must have. The bundle's own digest, as ``muelle inspect``
        shows it, whatever the store: for ``oci://`` too it is not the artefact's.
    """

    url: str
    digest: str | None = None

    @property
    def scheme(self) -> str:
        """What stands before ``://``, such as ``s3``."""
        return self.url.partition("://")[0]

    def __str__(self) -> str:
        """Return the URL for messages: a query may hold a signature, which is a secret."""
        address, question, _ = self.url.partition("?")
        return f"{address}?…" if question else address

    @classmethod
    def parse(cls, text: str) -> Source:
        """Parse ``URL``, ``URL@sha256:HEX`` or ``URL sha256:HEX``.

        Raises
        ------
        StoreError
            When it is none of these.
        """
        url, *rest = text.split()
        if not rest and "@sha256:" in url:
            url, _, hexadecimal = url.rpartition("@")
            rest = [hexadecimal]
        if len(rest) > 1:
            raise StoreError(f"{text.strip()!r}: expected a URL and a digest, got {len(rest) + 1} words")
        if rest and _DIGEST.fullmatch(rest[0]) is None:
            raise StoreError(f"{_shown(url)}: expected sha256: and 64 hex digits behind the URL, got {rest[0]!r}")
        _check_url(url)
        return cls(_without_slash(url), rest[0] if rest else None)


def parse_sources(text: str) -> list[Source]:
    """Parse lines, each a source; empty ones are passed over. Raises as `Source.parse` does."""
    return [Source.parse(line) for line in text.splitlines() if line.strip()]


def _check_url(url: str) -> None:
    shown = _shown(url)
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        hint = "" if separator else f"; a folder of this machine is file://{url if url.startswith('/') else '/' + url}"
        raise StoreError(f"{shown}: expected a URL that starts with one of {known}{hint}")
    if not url.isascii() or not url.isprintable():
        raise StoreError(f"{shown}: expected a URL of ASCII characters, others as %XX")
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at only now, by urllib
    except ValueError as error:
        raise StoreError(f"{shown}: not a URL: {error}") from error
    if "@" in parts.netloc:
        raise StoreError(
            f"{scheme}://…@{parts.hostname}: a user or password in the URL would be seen in logs; see --help"
        )
    if parts.fragment or (parts.query and scheme not in HTTP_SCHEMES):
        raise StoreError(f"{shown}: '?' and '#' mean nothing in a URL of {scheme}://")
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
            raise StoreError(f"{shown}: expected a whole path behind file://, such as file:///srv/models/iris/1")
    elif not parts.netloc:
        expected = "a bucket" if scheme in OBJECT_SCHEMES else "a host"
        raise StoreError(f"{shown}: expected {expected} behind {scheme}://")


def _shown(url: str) -> str:
    return str(Source(url))


def _without_slash(url: str) -> str:
    address, question, query = url.partition("?")
    return address.rstrip("/") + question + query
