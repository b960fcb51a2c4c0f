"""The little HTTP that ``muelle check`` needs, with the standard library."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from muelle.errors import MuelleError

#: An answer is a few kilobytes; the OpenAPI document of many models is larger.
_MAX_BYTES: Final = 64 * 1024 * 1024


class UnreachableError(MuelleError):
    """No answer came."""


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes
    ----------
    status : int
        HTTP status.
    body : bytes
        All of it.
    seconds : float
        From connecting to the body's last byte.
    """

    status: int
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Return the body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Server:
    """A server at a base URL, such as ``http://localhost:8080`` or one with a path in front.

    Parameters
    ----------
    url : str
        ``http`` or ``https``; without a scheme, ``http``.
    api_key : str, optional
        Sent as ``X-API-Key``.
    timeout_seconds : float
        For connecting and for each read.

    Raises
    ------
    MuelleError
        When the URL is none.
    """

    def __init__(self, url: str, api_key: str | None, timeout_seconds: float) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
            # Connecting does it, too: nothing between two dots can't be looked up.
            (parts.hostname or "").encode("idna")
        except ValueError as error:
            raise MuelleError(f"{url}: not a URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise MuelleError(f"{url}: expected a URL such as http://localhost:8080")
        if not parts.path.isascii():
            raise MuelleError(f"{url}: expected a path of ASCII characters, others as %XX")
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, port
        self._prefix = parts.path.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._headers = {"Accept": "application/json"}
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()):
                raise MuelleError("the API key: expected printable ASCII characters")
            self._headers["X-API-Key"] = api_key

    def request(self, method: str, path: str, document: object = None) -> Reply:
        """Send one request on a connection of its own.

        Parameters
        ----------
        method, path : str
            Such as ``GET`` and ``/livez``.
        document : object, optional
            Sent as JSON.

        Raises
        ------
        UnreachableError
            When no whole answer came.
        """
        body = None if document is None else json.dumps(document).encode()
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        connection = self._connect(self._host, self._port, timeout=self._timeout_seconds)
        started = time.perf_counter()
        try:
            connection.request(method, self._prefix + path, body=body, headers=headers)
            response = connection.getresponse()
            return Reply(response.status, response.read(_MAX_BYTES), time.perf_counter() - started)
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
        finally:
            connection.close()
