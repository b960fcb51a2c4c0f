"""Whether there can be traces, and the context that goes with what Muelle itself asks of others.

The traces are made by `service.spans`, the only module that knows OpenTelemetry: that is an extra, so it is imported
only when the setting asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from muelle.errors import SettingsError

if TYPE_CHECKING:
    from service.exchange import Exchange
    from service.settings import Settings

_SAMPLERS: Final = ("always_on", "always_off", "traceidratio")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # `port` raises for one that is no number, such as half of a password before a slash.
        return parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


#: What OpenTelemetry's SDK would pass over with a warning and another value than the one that was meant, or could not
#: work with in a worker, which is too late. Its other variables are its own business.
_EXPECTED: Final[dict[str, tuple[str, Callable[[str], bool]]]] = {
    "OTEL_TRACES_EXPORTER": ("otlp, the only one here", lambda text: text == "otlp"),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf, the only one here", lambda text: text == "http/protobuf"),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("http/protobuf, the only one here", lambda text: text == "http/protobuf"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("a URL with http:// or https://", _is_url),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("a URL with http:// or https://", _is_url),
    "OTEL_TRACES_SAMPLER": (
        f"{', '.join(_SAMPLERS)}, or one of these behind parentbased_",
        lambda text: text.lower().removeprefix("parentbased_") in _SAMPLERS,
    ),
    "OTEL_TRACES_SAMPLER_ARG": ("a share from 0 to 1", _is_share),
    "OTEL_BSP_SCHEDULE_DELAY": ("a whole number of milliseconds, 1 or more", _is_count),
    "OTEL_BSP_MAX_QUEUE_SIZE": ("a whole number of requests, 1 or more", _is_count),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": ("a whole number of requests, 1 or more", _is_count),
}
#: The two that depend on each other, with the SDK's defaults.
_BATCHING: Final = (("OTEL_BSP_MAX_QUEUE_SIZE", 2048), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))


def is_wanted(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether there shall be traces: OpenTelemetry's own switch can turn them off, too."""
    return settings.tracing and environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"


def check_tracing(environ: Mapping[str, str]) -> None:
    """See to it, in the arbiter, that workers can make traces; it also loads, once for all of them, what that needs.

    Parameters
    ----------
    environ : mapping
        With the ``OTEL_*`` variables.

    Raises
    ------
    SettingsError
        When the extra is not installed, or a variable can't mean what it says. The values of variables that may hold
        a password are not repeated.
    """
    faults = []
    for key, (expects, holds) in _EXPECTED.items():
        text = environ.get(key, "")
        if text and not holds(text):
            shown = "" if key.endswith("ENDPOINT") else f", got {text[:60]!r}"
            faults.append(f"{key}: expected {expects}{shown}")
    if not faults:
        room, batch = (int(environ.get(key) or default) for key, default in _BATCHING)
        if batch > room:
            faults.append(f"{_BATCHING[1][0]}: expected at most {_BATCHING[0][0]}, {room}, got {batch}")
    if faults:
        raise SettingsError("\n".join(faults))
    try:
        spans = importlib.import_module("service.span_export")
        importlib.import_module("service.spans")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"MUELLE_TRACING: traces need {error.name}, which is not installed: pip install 'muelle[tracing]'"
        ) from error
    try:
        complaints = spans.try_settings()
    except (ValueError, ImportError, RuntimeError) as error:
        raise SettingsError(f"MUELLE_TRACING: OpenTelemetry refuses its settings: {error}") from error
    if complaints:
        raise SettingsError(f"MUELLE_TRACING: OpenTelemetry says of its settings: {'; '.join(complaints)}")


def outgoing(exchange: Exchange) -> dict[str, str]:
    """Return the headers that tell whoever is asked because of this request which trace it belongs to.

    ``traceparent`` and, when the caller sent one, ``tracestate``; empty while there are no traces.
    """
    return {} if exchange.trace is None else exchange.trace.headers()
