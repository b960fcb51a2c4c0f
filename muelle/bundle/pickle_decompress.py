"""The pickle stream of a file, decompressed within bounds when joblib compressed it."""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from muelle.errors import UnsafePickleError

#: A compressed file may hold at most base + ratio * its size, and never more than the maximum, so that a small file
#: can't fill the memory. The ratio is just above the 1032:1 that zlib can reach, so a model of zeros passes; bz2 and xz
#: can reach far more, and are cut off there.
_DECOMPRESSED_BASE_BYTES: Final = 64 * 2**20
_DECOMPRESSED_RATIO: Final = 1040
_DECOMPRESSED_MAX_BYTES: Final = 8 * 2**30
#: Enough for every preset of xz (9 needs 65 MiB); the file's header may ask for up to 4 GiB.
_LZMA_MEMORY_BYTES: Final = 256 * 2**20


def _lz4_decompressor() -> Any:
    try:
        return importlib.import_module("lz4.frame").LZ4FrameDecompressor()
    except ImportError as error:
        raise UnsafePickleError("the file is compressed with lz4, which is not installed here") from error


#: The first bytes by which joblib knows a compressed file, and what reads it.
_DECOMPRESSORS: Final[Sequence[tuple[bytes, Callable[[], Any]]]] = (
    (b"\x78", zlib.decompressobj),
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZ", bz2.BZ2Decompressor),
    (b"\x5d\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_BYTES)),
    (b"\xfd7zXZ", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES)),
    (b'\x04"M\x18', _lz4_decompressor),
)


def decompress(data: bytes, where: str) -> bytes:
    """Return the pickle stream of a file, decompressed within bounds when it is compressed."""
    if data.startswith(b"ZF"):
        raise UnsafePickleError(f"{where} was written by joblib 0.9 or older, which is not supported")
    make = next((make for prefix, make in _DECOMPRESSORS if data.startswith(prefix)), None)
    if make is None:
        return data
    limit = min(_DECOMPRESSED_MAX_BYTES, _DECOMPRESSED_BASE_BYTES + _DECOMPRESSED_RATIO * len(data))
    try:
        decompressor = make()
        content: bytes = decompressor.decompress(data, limit + 1)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: {error}") from error
    except Exception as error:
        raise UnsafePickleError(f"{where} can't be decompressed: {type(error).__name__}: {error}") from error
    if len(content) > limit:
        raise UnsafePickleError(f"{where} holds more than the {limit} decompressed bytes that its size allows")
    if not decompressor.eof or decompressor.unused_data:
        raise UnsafePickleError(f"{where} can't be decompressed: it is truncated, or something follows its end")
    return content
