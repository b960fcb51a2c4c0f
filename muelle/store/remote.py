"""What fetching and pushing need of a store, whichever it is, and the way from a URL to one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from muelle.errors import NotFoundError, StoreError
from muelle.store.source import HTTP_SCHEMES, OBJECT_SCHEMES, Source

#: Files are read and written in pieces of this size, so that a model need not fit into memory.
CHUNK_BYTES: Final = 1024 * 1024
_FETCH_TIMEOUT_SECONDS: Final = 30.0
#: Sending a piece of some megabytes counts too, and lines are slow in that direction.
_PUSH_TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Access:
    """How stores may be talked to.

    Attributes
    ----------
    push : bool
        Whether something is to be stored, not only read.
    insecure : bool
        Whether plain http is taken, which anybody on the way can read and change.
    retry_seconds : float
        How long a store that gives no answer is asked again.
    timeout_seconds : float
        How long one answer, or the next piece of it, may take.
    s3_allow_http : bool
        Whether an S3 endpoint may be one of plain http; ``AWS_ALLOW_HTTP``, which other programs read too.
    authorization : str, optional
        The ``Authorization`` header for https:// sources.
    registry_username, registry_password : str, optional
        For registries; without them, what Docker's config.json says.
    docker_config : Path
        Docker's config.json; it need not exist.
    """

    push: bool = False
    insecure: bool = False
    retry_seconds: float = 30.0
    timeout_seconds: float = _FETCH_TIMEOUT_SECONDS
    s3_allow_http: bool = False
    authorization: str | None = field(default=None, repr=False)
    registry_username: str | None = None
    registry_password: str | None = field(default=None, repr=False)
    docker_config: Path = Path()

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], *, insecure: bool, retry_seconds: float, push: bool = False
    ) -> Access:
        """Return the command line's options, and the credentials of the environment."""
        folder = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME") or "/") / ".docker")
        return cls(
            push=push,
            insecure=insecure,
            retry_seconds=retry_seconds,
            timeout_seconds=_PUSH_TIMEOUT_SECONDS if push else _FETCH_TIMEOUT_SECONDS,
            s3_allow_http=environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"),
            authorization=environ.get("MUELLE_FETCH_AUTHORIZATION") or None,
            registry_username=environ.get("MUELLE_REGISTRY_USERNAME") or None,
            registry_password=environ.get("MUELLE_REGISTRY_PASSWORD") or None,
            docker_config=Path(folder) / "config.json",
        )


class Remote(Protocol):
    """A place that may hold one bundle. Used by several threads at once."""

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return a small file.

        Raises
        ------
        NotFoundError
            When there is no such file.
        StoreError
            When it is larger than the limit, or the store refuses; `StoreUnreachableError` when trying again may help.
        """
        ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """Give a file piece by piece; raises as `read` does, also in the middle."""
        ...


class WritableRemote(Remote, Protocol):
    """A place that can also be given a bundle."""

    def upload(self, name: str, path: Path) -> None:
        """Store a file of the bundle; a leftover of an interrupted push is overwritten."""
        ...

    def finish(self, manifest: bytes) -> None:
        """Store manifest.json, which makes a bundle of what was uploaded.

        Raises
        ------
        BundleExistsError
            When another writer was faster, where the store can tell.
        """
        ...


class LocalFolder:
    """A bundle in a folder, for ``file://``: a mounted share, for instance."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return a small file."""
        data = b""
        for chunk in self.chunks(name):
            data += chunk
            if len(data) > limit_bytes:
                raise StoreError(f"{self._path / name}: larger than {limit_bytes} bytes")
        return data

    def chunks(self, name: str) -> Iterator[bytes]:
        """Give a file piece by piece."""
        path = self._path / name
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as error:
            raise NotFoundError(f"{path}: no such file") from error
        except OSError as error:
            raise StoreError(f"{path}: can't be read: {error.strerror}") from error


def open_remote(source: Source, access: Access) -> Remote:
    """Return the store that a source means; nothing is asked of it yet.

    Raises
    ------
    StoreError
        When the URL, or the store's own settings in the environment, can't be right.
    """
    if source.scheme == "file":
        return LocalFolder(local_path(source))
    if source.scheme in HTTP_SCHEMES:
        from muelle.store.objects import web_folder

        return web_folder(source, access)
    return open_writable(source, access)


def open_writable(source: Source, access: Access) -> WritableRemote:
    """Return the store that a bundle is to be pushed to; raises as `open_remote` does."""
    if source.scheme == "oci":
        from muelle.store.oci import OciArtifact

        return OciArtifact(source, access)
    if source.scheme in OBJECT_SCHEMES:
        from muelle.store.objects import bucket_folder

        return bucket_folder(source, access)
    raise StoreError(f"{source}: can't be pushed to; expected s3://, gs://, az://, oci:// or file://")


def local_path(source: Source) -> Path:
    """Return the folder that a ``file://`` URL means."""
    return Path(unquote(urlsplit(source.url).path))
