"""The kinds of values that settings have: what each must look like, and how it is read from text."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from muelle.bundle.manifest import NAME
from muelle.errors import StoreError
from muelle.store import search_list
from muelle.store.source import OBJECT_SCHEMES, Source

T = TypeVar("T")

_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_WORDS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What a value must look like, for people, and the function that reads it (ValueError when it doesn't)."""

    expects: str
    parse: Callable[[str], T]


def whole(unit: str, minimum: int, maximum: int | None = None) -> Kind[int]:
    """Return the kind of a whole number within bounds, both included."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal()):
            raise ValueError
        number = int(text)
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError
        return number

    counted = f"a whole number of {unit}" if unit else "a whole number"
    return Kind(f"{counted}, {minimum} or more" if maximum is None else f"{counted} from {minimum} to {maximum}", parse)


def choice(options: tuple[str, ...]) -> Kind[Any]:
    """Return the kind of a text that is one of these."""

    def parse(text: str) -> str:
        if text not in options:
            raise ValueError
        return text

    return Kind(f"one of {', '.join(options)}", parse)


def _seconds(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise ValueError
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number


def _boolean(text: str) -> bool:
    try:
        return _WORDS[text.lower()]
    except KeyError:
        raise ValueError from None


def _path(text: str) -> Path:
    if "\0" in text or not text.strip():
        raise ValueError
    return Path(text)


def _host(text: str) -> str:
    if not text or any(character.isspace() for character in text):
        raise ValueError
    return text


def _address(text: str) -> str:
    # An IPv6 address may come as in a URL; those who put a port behind it bring brackets of their own.
    return _host(text[1:-1] if text.startswith("[") and text.endswith("]") else text)


def _host_and_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError
    return f"{_host(host)}:{port}"


def _folder_or_store(text: str) -> str:
    if "://" not in text:
        return str(_path(text))
    try:
        source = Source.parse(text)
    except StoreError as error:
        raise ValueError from error
    if source.scheme not in (*OBJECT_SCHEMES, "file") or source.digest is not None:
        raise ValueError
    return source.url


def _model_name(text: str) -> str:
    if not text or "/" in text or any(character.isspace() for character in text):
        raise ValueError
    return text


def _references(text: str) -> tuple[str, ...]:
    """Read ``NAME`` and ``NAME@VERSION``; an empty text, which a template may leave, is none."""
    found = [reference.strip() for reference in text.split(",")] if text.strip() else []
    for reference in found:
        name, at, version = reference.partition("@")
        if NAME.fullmatch(name) is None or (at and NAME.fullmatch(version) is None):
            raise ValueError
    return tuple(dict.fromkeys(found))


def _modules(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    if not all(_MODULE.fullmatch(name) for name in names):
        raise ValueError
    return tuple(dict.fromkeys(names))


def _columns(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    if not all(names):
        raise ValueError
    return tuple(dict.fromkeys(names))


SECONDS: Final = Kind("a number of seconds above 0", _seconds)
SHARE: Final = Kind("a number from 0 to 1", _share)
BOOLEAN: Final = Kind("true or false", _boolean)
PATH: Final = Kind("a path", _path)
FOLDERS: Final = Kind(f"folders, separated by {os.pathsep!r}", search_list)
HOST: Final = Kind("a host name or address", _address)
HOST_AND_PORT: Final = Kind("HOST:PORT", _host_and_port)
FOLDER_OR_STORE: Final = Kind("a folder, or a URL with s3, gs, az or file", _folder_or_store)
MODEL_NAME: Final = Kind("a model's name", _model_name)
REFERENCES: Final = Kind("NAME or NAME@VERSION, separated by commas", _references)
MODULES: Final = Kind("module names, separated by commas", _modules)
COLUMNS: Final = Kind("column names, separated by commas", _columns)
