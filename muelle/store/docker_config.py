"""The user and password for a registry, from where ``docker login`` and Kubernetes pull secrets put them."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from muelle.errors import StoreError

#: Docker Hub's registry has another name in Docker's config.json.
_HUB: Final = "registry-1.docker.io"
_HUB_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_LIMIT_BYTES: Final = 1024 * 1024
_HELPER: Final = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS: Final = 30
#: What a helper gives as the user when the secret is a refresh token.
_TOKEN_USER: Final = "<token>"  # noqa: S105  # no password


@dataclass(frozen=True)
class Login:
    """Who one is at a registry: a user and a password, or a refresh token."""

    username: str = ""
    password: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)


def find_login(path: Path, host: str) -> Login | None:
    """Return what Docker's config.json has for a registry, or None.

    Parameters
    ----------
    path : Path
        The file; it need not exist.
    host : str
        The registry, with its port when it has one.

    Raises
    ------
    StoreError
        When the file, or the helper program that it names, is broken.
    """
    document = _read(path)
    keys = (host, *(_HUB_KEYS if host == _HUB else ()))
    helpers = document.get("credHelpers")
    for key in keys:
        helper = helpers.get(key) if isinstance(helpers, dict) else None
        if helper:
            return _ask_helper(path, helper, key)
    auths = document.get("auths")
    for entry, value in (auths if isinstance(auths, dict) else {}).items():
        if entry in keys or _host_of(entry) == host:
            login = _login(path, entry, value)
            if login is not None:
                return login
    if store := document.get("credsStore"):
        return _ask_helper(path, store, _HUB_KEYS[0] if host == _HUB else host)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_LIMIT_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StoreError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: expected JSON as docker login writes it") from error
    if not isinstance(document, dict):
        raise StoreError(f"{path}: expected a JSON object as docker login writes it")
    return document


def _host_of(entry: str) -> str:
    return entry.partition("://")[2].partition("/")[0] if "://" in entry else entry.partition("/")[0]


def _login(path: Path, entry: str, value: Any) -> Login | None:
    if not isinstance(value, dict):
        raise StoreError(f"{path}: auths.{entry}: expected an object")
    if value.get("identitytoken"):
        return Login(refresh_token=str(value["identitytoken"]))
    if value.get("auth"):
        try:
            username, colon, password = base64.b64decode(str(value["auth"]), validate=True).decode().partition(":")
        except ValueError as error:
            raise StoreError(f"{path}: auths.{entry}.auth: expected base64 of USER:PASSWORD") from error
        if not colon:
            raise StoreError(f"{path}: auths.{entry}.auth: expected base64 of USER:PASSWORD")
        return Login(username, password.rstrip("\0"))
    if value.get("username"):
        return Login(str(value["username"]), str(value.get("password", "")))
    # An empty entry says: logged in, the password is with the helper.
    return None


def _ask_helper(path: Path, name: object, host: str) -> Login | None:
    """Ask ``docker-credential-NAME``; None when it has nothing."""
    if not isinstance(name, str) or _HELPER.fullmatch(name) is None:
        raise StoreError(f"{path}: expected the name of a credential helper, got {name!r}")
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(  # noqa: S603  # the user's own docker config.json names it, without a path
            [program, "get"], input=host.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise StoreError(f"{path} names {program}, which is not on the PATH") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"{program}, which {path} names, can't be run or does not end") from error
    if done.returncode:
        # Helpers end so when they know nothing of the host: it may be open to all.
        return None
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{program}: expected JSON with Username and Secret") from error
    return Login(refresh_token=secret) if username == _TOKEN_USER else Login(username, secret)
