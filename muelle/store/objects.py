"""Object stores and web servers, by way of obstore, which only this module and `object_errors` import."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from muelle.bundle.manifest import MANIFEST
from muelle.errors import StoreError
from muelle.store.object_errors import translated
from muelle.store.remote import CHUNK_BYTES, Access
from muelle.store.source import Source

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from obstore.store import ClientConfig, RetryConfig

_CONNECT_SECONDS: Final = 10
#: A whole file may take this long; that it stands still is noticed much earlier.
_TRANSFER_HOURS: Final = 6
#: Parts of one large file that are uploaded at once: few, so that none of them times out on a slow line.
_PARALLEL_PARTS: Final = 2
#: Files up to this size are fetched whole, in one request; of larger ones only the parts that are read.
_WHOLE_BYTES: Final = 8 * 1024 * 1024
_BUCKETS: Final[dict[str, Callable[..., Any]]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}


class ObjectFolder:
    """A bundle below a prefix of a store.

    Parameters
    ----------
    store : obstore store
        Already pointed at the bundle's folder.
    source : Source
        The same place for messages.
    """

    def __init__(self, store: Any, source: Source) -> None:
        self._store = store
        self._source = source

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return a small file; raises as `muelle.store.remote.Remote` says."""
        with self._translated(name):
            found = self._store.get(name)
            if found.meta["size"] > limit_bytes:
                raise StoreError(f"{self._at(name)}: larger than {limit_bytes} bytes")
            return bytes(found.bytes())

    def chunks(self, name: str) -> Iterator[bytes]:
        """Give a file piece by piece."""
        with self._translated(name):
            yield from self._store.get(name).stream(CHUNK_BYTES)

    def upload(self, name: str, path: Path) -> None:
        """Store a file of the bundle."""
        with self._translated(name):
            self._store.put(name, path, max_concurrency=_PARALLEL_PARTS)

    def finish(self, manifest: bytes) -> None:
        """Store manifest.json, only where there is none: of two writers one wins."""
        with self._translated(MANIFEST):
            self._store.put(MANIFEST, manifest, mode="create")

    def _at(self, name: str) -> str:
        return f"{self._source}/{name}"

    def _translated(self, name: str) -> contextlib.AbstractContextManager[None]:
        return translated(self._at(name))


class ObjectTree:
    """Files below a prefix of a store; see `muelle.store.tree.Tree`.

    Parameters
    ----------
    store : obstore store
        Already pointed at the prefix.
    source : Source
        The same place for messages.
    """

    def __init__(self, store: Any, source: Source) -> None:
        self._store = store
        self._source = source

    def put(self, path: str, data: bytes) -> None:
        """Store a file; stores show an object when it is complete."""
        with translated(f"{self._source}/{path}"):
            self._store.put(path, data, max_concurrency=_PARALLEL_PARTS)

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield paths and sizes."""
        with translated(str(self._source)):
            for page in self._store.list(chunk_size=1000):
                yield from ((item["path"], item["size"]) for item in page)

    def open(self, path: str, size_bytes: int) -> BinaryIO:
        """Return a file to read and seek in."""
        where = f"{self._source}/{path}"
        if size_bytes > _WHOLE_BYTES:
            ranges = io.BufferedReader(_Ranges(self._store, path, size_bytes, where), CHUNK_BYTES)
            return cast("BinaryIO", ranges)
        with translated(where):
            return io.BytesIO(bytes(self._store.get(path).bytes()))


class _Ranges(io.RawIOBase):
    """An object, of which only the ranges are fetched that are read."""

    def __init__(self, store: Any, path: str, size_bytes: int, where: str) -> None:
        self._store = store
        self._path = path
        self._size = size_bytes
        self._where = where
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), self._size - self._position)
        if count <= 0:
            return 0
        with translated(self._where):
            view[:count] = bytes(self._store.get_range(self._path, start=self._position, length=count))
        self._position += count
        return count


def bucket_folder(source: Source, access: Access) -> ObjectFolder:
    """Return a bundle's place in a bucket or container; credentials and endpoint come from the usual environment.

    Raises
    ------
    StoreError
        When the path or the environment can't be right.
    """
    return ObjectFolder(_bucket(source, access), source)


def bucket_tree(source: Source, access: Access) -> ObjectTree:
    """Return a place in a bucket or container for files of any kind; otherwise as `bucket_folder`."""
    return ObjectTree(_bucket(source, access), source)


def web_folder(source: Source, access: Access) -> ObjectFolder:
    """Return a bundle's folder on a web server; raises as `bucket_folder` does."""
    if source.scheme == "http" and not access.insecure:
        raise StoreError(f"{source}: http can be read and changed on the way; --insecure takes it all the same")
    options = _client(access, allow_http=access.insecure)
    if access.authorization is not None and source.scheme == "https":
        # On a redirect to another host it is left out.
        options["default_headers"] = {"Authorization": access.authorization}
    with translated(str(source)):
        store = HTTPStore.from_url(source.url, client_options=options, retry_config=_retries(access))
    return ObjectFolder(store, source)


def _bucket(source: Source, access: Access) -> Any:
    parts = urlsplit(source.url)
    allow_http = access.insecure or (source.scheme == "s3" and access.s3_allow_http)
    with translated(str(source)):
        return _BUCKETS[source.scheme](
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            client_options=_client(access, allow_http=allow_http),
            retry_config=_retries(access),
        )


def _client(access: Access, *, allow_http: bool) -> ClientConfig:
    return {
        "allow_http": allow_http,
        "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, access.timeout_seconds)),
        "read_timeout": timedelta(seconds=access.timeout_seconds),
        "timeout": timedelta(hours=_TRANSFER_HOURS),
        "user_agent": "muelle",
    }


def _retries(access: Access) -> RetryConfig:
    """Return a few quick retries, for one of many parts; what takes longer is `muelle.store.retry`'s."""
    return {"max_retries": 3 if access.retry_seconds else 0, "retry_timeout": timedelta(seconds=access.retry_seconds)}
