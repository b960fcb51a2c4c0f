"""Settings of the service: read once from the environment, checked, frozen.

Every field of `Settings` is the variable ``MUELLE_`` + its name in capitals. A variable that starts like that and is
none of them stops start-up, since a misspelt limit that silently stays at its default is found only when it hurts.
Left alone are the service links that Kubernetes puts into every container beside a Service whose name starts with
"muelle": ``MUELLE_PORT=tcp://10.0.0.1:80`` is such a link, not a port.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast, get_args

from muelle.errors import SettingsError
from service import settings_kinds as kinds
from service.settings_kinds import Kind

Engine = Literal["auto", "onnx", "joblib", "skops"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

PREFIX: Final = "MUELLE_"
#: Who may name the port, strongest first; MUELLE_PORT also carries the command line's --port.
PORT_KEYS: Final = ("MUELLE_PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "PORT")

_LINK_KEY: Final = re.compile(
    r"MUELLE(_[A-Z0-9_]+)?(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINK_PORT_KEY: Final = re.compile(r"MUELLE(_[A-Z0-9_]+)?_PORT")
#: A user and password in a URL.
_USER_INFO: Final = re.compile(r"://[^/]*@")
_LINK_PORT_VALUE: Final = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


def _about(kind: Kind[Any], why: str) -> dict[str, Any]:
    """Return a field's metadata; `why` says what it does and why the default is what it is."""
    return {"kind": kind, "why": why}


@dataclass(frozen=True)
class Settings:
    """All settings of one server; `describe` lists them for people."""

    models: tuple[Path, ...] = field(
        default=(Path("models"),),
        metadata=_about(
            kinds.FOLDERS,
            "Folder of the bundles, NAME/VERSION in it; of several the first that exists, so that a mounted one hides "
            "the image's own. The default is where `muelle train` writes.",
        ),
    )
    serve: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            kinds.REFERENCES,
            "Models, or versions of them, to serve, and no others; empty: all that there are.",
        ),
    )
    default_model: str | None = field(
        default=None,
        metadata=_about(
            kinds.MODEL_NAME,
            "The model that answers where a request names none; unset: the only one that is served, or the one that "
            "the file default-model beside the models names.",
        ),
    )
    host: str = field(
        default="0.0.0.0",  # noqa: S104 (in a container, the one address at which its port can be reached)
        metadata=_about(
            kinds.HOST,
            "Address to listen on; all interfaces, since in a container only the published port can be reached.",
        ),
    )
    port: int = field(
        default=8080,
        metadata=_about(
            kinds.whole("", 1, 65535),
            f"TCP port; of {', '.join(PORT_KEYS)} the first that is set counts: one's own word before the platform's.",
        ),
    )
    workers: int = field(
        default=2,
        metadata=_about(
            kinds.whole("processes", 1), "Worker processes; with two, one answers while the other is replaced."
        ),
    )
    threads: int = field(
        default=2,
        metadata=_about(
            kinds.whole("threads", 1), "Threads a worker; one or two gave a p99 seven times better than eight."
        ),
    )
    engine: Engine = field(
        default="auto",
        metadata=_about(
            kinds.choice(get_args(Engine)),
            "What runs the models; auto: ONNX where the bundle has it, as it is the fastest.",
        ),
    )
    allowed_modules: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            kinds.MODULES,
            "Modules that pickles may import beside the built-in list; none, as each is code that a model can run.",
        ),
    )
    max_body_bytes: int = field(
        default=16 * 1024 * 1024,
        metadata=_about(
            kinds.whole("bytes", 1),
            "Largest request body, also after decompression; 16 MiB are some 60,000 rows of 30 numbers.",
        ),
    )
    max_rows: int = field(
        default=100_000,
        metadata=_about(kinds.whole("rows", 1), "Most rows in one request; more would occupy a thread for seconds."),
    )
    max_concurrency: int = field(
        default=64,
        metadata=_about(
            kinds.whole("requests", 1),
            "Requests a worker has in hand or waiting before it answers 503; a longer queue makes all of them late.",
        ),
    )
    request_timeout_seconds: float = field(
        default=30.0,
        metadata=_about(
            kinds.SECONDS,
            "Age at which a request's connection is read no further, and a worker that is stuck on it is restarted.",
        ),
    )
    graceful_timeout_seconds: int = field(
        default=25,
        metadata=_about(
            kinds.whole("seconds", 1),
            "Time after SIGTERM to finish what was accepted; below the 30 s after which platforms kill.",
        ),
    )
    keepalive_seconds: int = field(
        default=15,
        metadata=_about(
            kinds.whole("seconds", 0),
            "How long an idle connection is kept, so that callers can reuse it; 0 closes at once.",
        ),
    )
    max_requests: int = field(
        default=0,
        metadata=_about(
            kinds.whole("requests", 0),
            "Requests after which a worker is replaced, against leaks in estimators; 0: never. "
            "It serves until the next one has loaded, which takes memory for one more.",
        ),
    )
    max_requests_jitter: int = field(
        default=0,
        metadata=_about(
            kinds.whole("requests", 0), "Up to this many more, at random, so that workers are not all replaced at once."
        ),
    )
    api_keys_file: Path | None = field(
        default=None,
        metadata=_about(
            kinds.PATH, "File of hashed API keys, a line `NAME sha256:HEX` each; unset: everybody may ask."
        ),
    )
    log_level: LogLevel = field(
        default="info",
        metadata=_about(kinds.choice(get_args(LogLevel)), "Least severe level that is logged."),
    )
    access_log: bool = field(
        default=True,
        metadata=_about(kinds.BOOLEAN, "One JSON line a request on standard output."),
    )
    drift: bool = field(
        default=True,
        metadata=_about(
            kinds.BOOLEAN,
            "Count features, predictions and confidence into the reference profile's bins, for drift; costs about 2 %.",
        ),
    )
    metrics_port: int | None = field(
        default=None,
        metadata=_about(
            kinds.whole("", 1, 65535),
            "Second TCP port, for /metrics alone, from a process of its own, so that busy workers keep no scrape "
            "waiting; unset: none.",
        ),
    )
    tracing: bool = field(
        default=False,
        metadata=_about(
            kinds.BOOLEAN,
            "Send OpenTelemetry traces of predictions by OTLP; where to and how many, OpenTelemetry's own OTEL_ "
            "variables say. Needs the extra `tracing`.",
        ),
    )
    feedback_rows: int = field(
        default=100_000,
        metadata=_about(
            kinds.whole("rows", 0, 10_000_000),
            "Latest answers that a worker remembers, to count the labels of POST /feedback against; 0: no feedback.",
        ),
    )
    feedback_peers: str | None = field(
        default=None,
        metadata=_about(
            kinds.HOST_AND_PORT,
            "Name whose addresses are all replicas: labels that one can't match go to the others; unset: to none.",
        ),
    )
    prediction_log: str | None = field(
        default=None,
        metadata=_about(
            kinds.FOLDER_OR_STORE,
            "Where rows that were answered, the answers and the labels are kept as Parquet; unset: nowhere, as they "
            "may be personal.",
        ),
    )
    prediction_log_sample: float = field(
        default=1.0, metadata=_about(kinds.SHARE, "Share of the requests that are logged, always all rows of one.")
    )
    prediction_log_redact: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            kinds.COLUMNS, "Never written to the log: features, `*` for all, predict, predict_proba or confidence."
        ),
    )
    prediction_log_spool: Path | None = field(
        default=None,
        metadata=_about(
            kinds.PATH,
            "Folder in which rows wait until they are written as Parquet; unset: in the metrics folder. On a volume of "
            "its own they outlive the pod.",
        ),
    )
    prediction_log_spool_bytes: int = field(
        default=256 * 1024 * 1024,
        metadata=_about(
            kinds.whole("bytes", 1024 * 1024),
            "Size of that folder from which on rows are dropped, and counted as such.",
        ),
    )
    prediction_log_seconds: float = field(
        default=60.0,
        metadata=_about(kinds.SECONDS, "How often Parquet files are written: seldom enough that they don't get tiny."),
    )
    ui: bool = field(
        default=False,
        metadata=_about(kinds.BOOLEAN, "A page at /ui that shows traffic and drift, with a form to try the models."),
    )
    metrics_dir: Path | None = field(
        default=None,
        metadata=_about(
            kinds.PATH, "Folder in which the workers share their metrics; unset: a fresh temporary folder."
        ),
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from environment variables.

        Raises
        ------
        SettingsError
            One line for each variable that is unknown or has a bad value: its name, what was expected, what came.
        """
        known = {f"{PREFIX}{item.name.upper()}": item.name for item in fields(cls)}
        found = {item.name: cast("Kind[Any]", item.metadata["kind"]) for item in fields(cls)}
        port_key = next((key for key in PORT_KEYS if _names_a_port(key, environ.get(key))), None)
        values: dict[str, Any] = {}
        faults: list[str] = []
        for key, text in sorted(environ.items()):
            if key in PORT_KEYS:
                if key != port_key:
                    continue
                name = "port"
            elif not key.startswith(PREFIX) or _is_service_link(key, text):
                continue
            elif key not in known:
                faults.append(_unknown(key, known))
                continue
            else:
                name = known[key]
            try:
                values[name] = found[name].parse(text)
            except ValueError:
                faults.append(f"{key}: expected {found[name].expects}, got {_shown(text)}")
        if faults:
            raise SettingsError("\n".join(faults))
        return cls(**values)


def _names_a_port(key: str, text: str | None) -> bool:
    """Whether this variable is there to name a port: not a service link, and not left empty by a platform."""
    if text is None:
        return False
    return not _is_service_link(key, text) if key.startswith(PREFIX) else text != ""


def _is_service_link(key: str, text: str) -> bool:
    """Whether Kubernetes set this variable for a Service called muelle or muelle-something."""
    if _LINK_KEY.fullmatch(key):
        return True
    return _LINK_PORT_KEY.fullmatch(key) is not None and _LINK_PORT_VALUE.match(text) is not None


def _unknown(key: str, known: Iterable[str]) -> str:
    # The value stays out of the message: whoever sets MUELLE_API_KEY by mistake has put a secret there.
    # Compared without the prefix, which would make any two of them look alike.
    near = difflib.get_close_matches(key.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known], n=1)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"{key}: no such setting; {hint}"


def _shown(text: str) -> str:
    text = _USER_INFO.sub("://…@", text)
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


class Description(NamedTuple):
    """One line of the table of settings."""

    key: str
    type: str
    default: str
    help: str


def describe() -> list[Description]:
    """Return all settings in order, as texts, for a reference table; an empty default means: not set."""
    lines = []
    for item in fields(Settings):
        default = item.default
        if isinstance(default, bool):
            shown = str(default).lower()
        elif isinstance(default, tuple):
            # Only the folders are paths.
            shown = (os.pathsep if item.name == "models" else ",").join(map(str, default))
        else:
            shown = "" if default is None else str(default)
        lines.append(
            Description(f"{PREFIX}{item.name.upper()}", item.metadata["kind"].expects, shown, item.metadata["why"])
        )
    return lines
