"""A client of one repository in an OCI registry: who one is, and single requests.

Written against the OCI distribution specification 1.1 and the token authentication of the distribution project. The
packages for it want `requests` and more, and none of them bounds what it reads; what is needed here is three requests.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import threading
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

from muelle.errors import NotFoundError, StoreError, StoreUnreachableError
from muelle.store.docker_config import Login, find_login
from muelle.store.remote import Access
from muelle.store.web import Refusal, Web, no_answer

_ALIASES: Final = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_TOKEN_LIMIT_BYTES: Final = 1024 * 1024
_CHALLENGE_FIELD: Final = re.compile(r'(\w+)="([^"]*)"')


class Registry:
    """One repository of a registry. Used by several threads at once.

    Parameters
    ----------
    host : str
        With its port when it has one.
    repository : str
        Such as ``team/models/iris``.
    actions : str
        What tokens are asked for: ``pull`` or ``pull,push``.
    access : Access
        Options and credentials.
    """

    def __init__(self, host: str, repository: str, actions: str, access: Access) -> None:
        self.host = _ALIASES.get(host, host)
        self._scope = f"repository:{repository}:{actions}"
        self._prefix = f"/v2/{repository}"
        self._access = access
        self._web = Web(insecure=access.insecure, timeout_seconds=access.timeout_seconds)
        self._lock = threading.Lock()
        self._base: str | None = None
        self._authorization: str | None = None
        self._login: Login | None = None

    def send(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | Path | None = None,
    ) -> http.client.HTTPResponse:
        """Return the answer, its body not yet read; close it.

        Parameters
        ----------
        method : str
            Such as ``GET``.
        path : str
            Below the repository, such as ``/manifests/1``; or the URL that the registry itself named.
        headers : dict, optional
            Besides ``Authorization``.
        body : bytes or Path, optional
            A path is read as it is sent.

        Raises
        ------
        NotFoundError
            When there is no such repository, artefact or blob.
        StoreError
            When the registry refuses; `StoreUnreachableError` when trying again may help.
        """
        base = self._base_url()
        url = path if "://" in path else base + self._prefix + path
        if urlsplit(url).scheme == "http" and not self._access.insecure:
            raise StoreError(f"{base} wants plain http to be used, which is refused; --insecure takes it all the same")
        try:
            return self._once(method, url, headers or {}, body)
        except Refusal as refusal:
            if refusal.status != 401:
                raise self._told(refusal) from refusal
            challenge = refusal.headers.get_all("WWW-Authenticate") or []
        # Never sent before, or a token that has run out.
        with self._lock:
            self._authorization = self._answer_to(challenge)
        try:
            return self._once(method, url, headers or {}, body)
        except Refusal as refusal:
            raise self._told(refusal) from refusal

    def absolute(self, location: str) -> str:
        """Return a URL that the registry named, which may be relative to itself."""
        return urljoin(self._base_url() + "/", location)

    def _once(
        self, method: str, url: str, headers: dict[str, str], body: bytes | Path | None
    ) -> http.client.HTTPResponse:
        """Send one request; what the registry may know of us stays with the registry."""
        own = urlsplit(url)[:2] == urlsplit(self._base_url())[:2]
        authorization = self._authorization if own else None
        try:
            if isinstance(body, Path):
                with body.open("rb") as file:
                    size = {"Content-Length": str(body.stat().st_size)}
                    return self._web.send(method, url, headers | size, authorization, file)
            return self._web.send(method, url, headers, authorization, body)
        except ssl.SSLError as error:
            raise no_answer(url, error) from error

    def _told(self, refusal: Refusal) -> Exception:
        if refusal.status == 404:
            return NotFoundError(f"{self._base}: not found")
        error = refusal.error(str(self._base))
        if refusal.status in (401, 403):
            known = self._login is not None or self._access.registry_username is not None
            hint = "these credentials may not do that" if known else f"there are no credentials for {self.host}"
            return StoreError(f"{error}; {hint}")
        return error

    def _base_url(self) -> str:
        """Return ``https://HOST``; with --insecure ``http://HOST`` where nobody speaks TLS, as Docker does it."""
        with self._lock:
            if self._base is None:
                self._base = f"https://{self.host}"
                if self._access.insecure and not self._speaks_tls():
                    self._base = f"http://{self.host}"
            return self._base

    def _speaks_tls(self) -> bool:
        try:
            self._web.send("GET", f"https://{self.host}/v2/", {}).close()
        except Refusal:
            return True
        except ssl.SSLError:
            return False
        return True

    def _answer_to(self, challenges: list[str]) -> str:
        """Return the Authorization header that a registry wants."""
        login = self._find_login()
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer":
                return f"Bearer {self._token(dict(_CHALLENGE_FIELD.findall(rest)), login)}"
            if scheme.lower() == "basic":
                if login is None or not login.username:
                    raise StoreError(f"{self._base} wants a user and a password, and there are none for {self.host}")
                return _basic(login)
        raise StoreError(f"{self._base} answers 401 and asks for neither Basic nor Bearer authentication")

    def _find_login(self) -> Login | None:
        if self._access.registry_username is not None:
            self._login = Login(self._access.registry_username, self._access.registry_password or "")
        elif self._login is None:
            self._login = find_login(self._access.docker_config, self.host)
        return self._login

    def _token(self, challenge: dict[str, str], login: Login | None) -> str:
        """Get a token from the service that the registry names."""
        realm = challenge.get("realm", "")
        allowed = ("https", "http") if self._access.insecure else ("https",)
        if urlsplit(realm).scheme not in allowed:
            raise StoreError(f"{self._base} sends for a token to {realm!r}; expected a URL of https://")
        query = {"service": challenge.get("service", ""), "scope": self._scope}
        try:
            with closing(self._ask_for_token(realm, query, login)) as answer:
                document = json.loads(_read(answer, _TOKEN_LIMIT_BYTES, realm))
            token = document.get("token") or document.get("access_token")
        except Refusal as refusal:
            raise self._told(refusal) from refusal
        except ssl.SSLError as error:
            raise no_answer(realm, error) from error
        except (ValueError, AttributeError) as error:
            raise StoreError(f"{realm}: expected a token as JSON") from error
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
            raise StoreError(f"{realm}: expected a token, got none")
        return token

    def _ask_for_token(self, realm: str, query: dict[str, str], login: Login | None) -> http.client.HTTPResponse:
        if login is not None and login.refresh_token:
            form: dict[str, Any] = query | {
                "grant_type": "refresh_token",
                "refresh_token": login.refresh_token,
                "client_id": "muelle",
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._web.send("POST", realm, headers, body=urlencode(form).encode())
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        return self._web.send("GET", url, {}, authorization=None if login is None else _basic(login))


def read_body(answer: http.client.HTTPResponse, limit_bytes: int, where: str) -> bytes:
    """Read all of a small answer and close it.

    Raises
    ------
    StoreError
        When it is larger than the limit; `StoreUnreachableError` when the connection breaks.
    """
    with closing(answer):
        return _read(answer, limit_bytes, where)


def read_piece(answer: IO[bytes], size: int, where: str) -> bytes:
    """Read the next piece of an answer, nothing at its end; `StoreUnreachableError` when the connection breaks."""
    try:
        return answer.read(size)
    except (OSError, http.client.HTTPException) as error:
        reason = "no more came in time" if isinstance(error, TimeoutError) else "the connection broke in the middle"
        raise StoreUnreachableError(f"{where}: {reason}") from error


def _read(answer: http.client.HTTPResponse, limit_bytes: int, where: str) -> bytes:
    data = b""
    while piece := read_piece(answer, limit_bytes + 1 - len(data), where):
        data += piece
        if len(data) > limit_bytes:
            raise StoreError(f"{where}: larger than {limit_bytes} bytes")
    if answer.length:  # what was announced and never came
        raise StoreUnreachableError(f"{where}: the connection broke in the middle")
    return data


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
