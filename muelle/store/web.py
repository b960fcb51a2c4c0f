"""One HTTP exchange with a registry, with the standard library: redirects, limits, and errors in one sentence."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any, Final
from urllib.parse import urlsplit

from muelle.errors import StoreError, StoreUnreachableError

#: An error's explanation is short.
_ERROR_LIMIT_BYTES: Final = 16 * 1024
#: Statuses after which trying again may help, besides all from 500 on.
_RETRIED: Final = frozenset({408, 425, 429})

#: What OpenSSL's versions say of an answer in plain text.
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


class Refusal(Exception):  # noqa: N818  # an answer, which the caller may well have expected
    """An answer with a status of 400 or more."""

    def __init__(self, status: int, reason: str, headers: Message, body: bytes) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body

    def error(self, where: str) -> StoreError:
        """Return it as a sentence, with what the registry says of it."""
        kind = StoreUnreachableError if self.status >= 500 or self.status in _RETRIED else StoreError
        return kind(f"{where} answers {self.status} {self.reason}{self._own_words()}".rstrip())

    def _own_words(self) -> str:
        try:
            errors = json.loads(self.body)["errors"]
            words = [f"{item['code']}, {item.get('message', '')}".rstrip(", ") for item in errors[:3]]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            return ""
        return f": {' '.join('; '.join(words).split())[:300]}" if words else ""


class Web:
    """Sends requests; follows redirects, to http only where that is allowed, and without credentials to other hosts.

    Parameters
    ----------
    insecure : bool
        Whether plain http is taken.
    timeout_seconds : float
        For connecting and for each read.
    """

    def __init__(self, *, insecure: bool, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(insecure=insecure),
        ):
            self._opener.add_handler(handler)

    def send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        authorization: str | None = None,
        body: bytes | IO[bytes] | None = None,
    ) -> http.client.HTTPResponse:
        """Return the answer, its body not yet read; close it.

        Raises
        ------
        Refusal
            For a status of 400 or more.
        ssl.SSLError
            When the server doesn't speak TLS.
        StoreError
            When no answer came; mostly `StoreUnreachableError`.
        """
        request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310  # no other handlers
        if authorization is not None:
            request.add_unredirected_header("Authorization", authorization)
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout_seconds)
        except urllib.error.HTTPError as error:
            with error:
                raise Refusal(error.code, error.reason, error.headers, _explanation(error)) from error
        except urllib.error.URLError as error:
            cause = error.reason
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLCertVerificationError):
                raise cause from error
            raise no_answer(url, cause) from error
        except (OSError, http.client.HTTPException) as error:
            raise no_answer(url, error) from error
        except UnicodeError as error:
            # A host's name with nothing between two dots, or more than 63 characters there.
            raise StoreError(f"{_server(url)}: not a URL that can be asked: {error}") from error
        return answer


def _explanation(error: urllib.error.HTTPError) -> bytes:
    """Return what a refusal says of itself; nothing when the connection breaks, since the status has come."""
    try:
        return error.read(_ERROR_LIMIT_BYTES)
    except (OSError, http.client.HTTPException):
        return b""


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def no_answer(url: str, cause: object) -> StoreError:
    """Return in a sentence why no answer came."""
    server = _server(url)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StoreError(
            f"{server}'s certificate is not trusted ({cause.verify_message}); "
            "SSL_CERT_FILE can name an authority of your own"
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS:
        return StoreError(f"{server} does not speak TLS")
    if isinstance(cause, socket.gaierror):
        return StoreUnreachableError(f"the name of {server} can't be looked up: {cause.strerror}")
    if isinstance(cause, ConnectionRefusedError):
        return StoreUnreachableError(f"{server} refused the connection")
    if isinstance(cause, TimeoutError):
        return StoreUnreachableError(f"{server} did not answer in time")
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return StoreUnreachableError(f"{server}: {reason}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """As the standard library follows them: up to ten. Headers that were not to be redirected stay with their host."""

    def __init__(self, *, insecure: bool) -> None:
        self._schemes = ("https", "http") if insecure else ("https",)

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in self._schemes:
            raise StoreError(f"{before.scheme}://{before.netloc} redirects to plain {after.scheme}, which is refused")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        authorization = req.unredirected_hdrs.get("Authorization")
        if request is not None and authorization and (before.scheme, before.netloc) == (after.scheme, after.netloc):
            request.add_unredirected_header("Authorization", authorization)
        return request
