"""A bundle as an artefact in an OCI registry: one blob a file, each named by its title, as ``oras`` does it too."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from muelle.bundle.files import file_sha256, sha256
from muelle.bundle.manifest import MANIFEST
from muelle.errors import NotFoundError, StoreError, StoreUnreachableError
from muelle.store.registry import Registry, read_body, read_piece
from muelle.store.remote import CHUNK_BYTES, Access
from muelle.store.source import Source

ARTIFACT_TYPE: Final = "application/vnd.muelle.bundle.v1"
_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
#: What else a tag may hold. A registry may say that there is nothing when none of the types it is asked for is there.
_ANY_MANIFEST: Final = ", ".join(
    (
        _MANIFEST_TYPE,
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
#: The specification's own stand-in where there is no configuration.
_EMPTY: Final = b"{}"
_TITLE: Final = "org.opencontainers.image.title"
_MEDIA_TYPES: Final = {".json": "application/json", ".md": "text/markdown"}
#: Registries take no larger ones either.
_MANIFEST_LIMIT_BYTES: Final = 4 * 1024 * 1024
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class _Blob:
    """A file of the artefact: ``sha256:`` and hex digits, and its size."""

    digest: str
    size_bytes: int

    def descriptor(self, media_type: str, title: str | None = None) -> dict[str, Any]:
        annotations = {} if title is None else {"annotations": {_TITLE: title}}
        return {"mediaType": media_type, "digest": self.digest, "size": self.size_bytes} | annotations


class OciArtifact:
    """A tag in a registry's repository.

    Parameters
    ----------
    source : Source
        ``oci://HOST/REPOSITORY:TAG``.
    access : Access
        Options and credentials.

    Raises
    ------
    StoreError
        When the URL has no repository or tag.
    """

    def __init__(self, source: Source, access: Access) -> None:
        parts = urlsplit(source.url)
        repository, colon, tag = parts.path.lstrip("/").rpartition(":")
        if not colon or not _TAG.fullmatch(tag) or not _REPOSITORY.fullmatch(repository):
            raise StoreError(
                f"{source}: expected a repository in small letters and a tag behind the host, "
                f"such as oci://{parts.netloc}/models/iris:2"
            )
        self._source = source
        self._tag = tag
        actions = "pull,push" if access.push else "pull"
        self._registry = Registry(parts.netloc, repository, actions, access)
        self._lock = threading.Lock()
        self._found: dict[str, _Blob] | None = None
        self._uploaded: dict[str, _Blob] = {}

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return a small file; raises as `muelle.store.remote.Remote` says."""
        blob = self._blob(name)
        if blob.size_bytes > limit_bytes:
            raise StoreError(f"{self._source}: {name}: larger than {limit_bytes} bytes")
        try:
            return b"".join(self.chunks(name))
        except NotFoundError as error:
            # Not the same as no such tag: who pushes must not take that for a free one.
            raise StoreError(f"{self._source}: the registry lists {name} and does not have it") from error

    def chunks(self, name: str) -> Iterator[bytes]:
        """Give a file piece by piece."""
        blob = self._blob(name)
        where = f"{self._source}: {name}"
        left = blob.size_bytes
        with closing(self._send("GET", f"/blobs/{blob.digest}")) as answer:
            while piece := read_piece(answer, CHUNK_BYTES, where):
                left -= len(piece)
                if left < 0:
                    raise StoreError(f"{where}: larger than the {blob.size_bytes} bytes that the registry lists")
                yield piece
        if left:
            raise StoreUnreachableError(f"{where}: the connection broke in the middle")

    def upload(self, name: str, path: Path) -> None:
        """Store a file of the bundle, unless the repository has it already."""
        blob = _Blob(f"sha256:{file_sha256(path)}", path.stat().st_size)
        self._store(blob, path)
        with self._lock:
            self._uploaded[name] = blob

    def finish(self, manifest: bytes) -> None:
        """Store manifest.json and the artefact's own manifest under the tag. No registry can tell two writers apart."""
        self._uploaded[MANIFEST] = _of(manifest)
        self._store(self._uploaded[MANIFEST], manifest)
        self._store(_of(_EMPTY), _EMPTY)
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": _of(_EMPTY).descriptor(_EMPTY_TYPE),
            "layers": [
                blob.descriptor(_MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream"), title=name)
                for name, blob in sorted(self._uploaded.items())
            ],
        }
        body = json.dumps(document).encode()
        self._send("PUT", f"/manifests/{self._tag}", {"Content-Type": _MANIFEST_TYPE}, body).close()

    def _store(self, blob: _Blob, body: bytes | Path) -> None:
        try:
            self._send("HEAD", f"/blobs/{blob.digest}").close()
        except NotFoundError:
            pass
        else:
            return
        with closing(self._send("POST", "/blobs/uploads/", {"Content-Length": "0"})) as answer:
            location = answer.headers.get("Location")
            if not location:
                raise StoreError(f"{self._source}: the registry takes an upload and does not say where")
            place = self._registry.absolute(location)
        url = f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': blob.digest})}"
        self._send("PUT", url, {"Content-Type": "application/octet-stream"}, body).close()

    def _send(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | Path | None = None
    ) -> HTTPResponse:
        """As the registry's own, with the artefact in front of what is wrong."""
        try:
            return self._registry.send(method, path, headers, body)
        except (StoreError, NotFoundError) as error:
            raise type(error)(f"{self._source}: {error}") from error

    def _blob(self, name: str) -> _Blob:
        with self._lock:
            if self._found is None:
                self._found = self._list()
        if name not in self._found:
            raise NotFoundError(f"{self._source}: no {name} in it")
        return self._found[name]

    def _list(self) -> dict[str, _Blob]:
        """Return the artefact's files; only where the tag is not there at all, a `NotFoundError`."""
        try:
            answer = self._send("GET", f"/manifests/{self._tag}", {"Accept": _ANY_MANIFEST})
        except NotFoundError as error:
            raise NotFoundError(f"{self._source}: no such repository or tag") from error
        data = read_body(answer, _MANIFEST_LIMIT_BYTES, str(self._source))
        found = {}
        try:
            for layer in json.loads(data)["layers"]:
                title = layer.get("annotations", {}).get(_TITLE)
                if title is not None:
                    found[str(title)] = _Blob(str(layer["digest"]), int(layer["size"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise StoreError(f"{self._source} holds something that is no bundle: it has no list of files") from error
        if MANIFEST not in found:
            raise StoreError(f"{self._source} holds something that is no bundle: no {MANIFEST} in it")
        # The digest goes into a URL.
        if wrong := [name for name, blob in found.items() if not _DIGEST.fullmatch(blob.digest) or blob.size_bytes < 0]:
            raise StoreError(f"{self._source}: {wrong[0]}: expected a SHA-256 digest and a size in the list of files")
        return found


def _of(data: bytes) -> _Blob:
    return _Blob(f"sha256:{sha256(data)}", len(data))
