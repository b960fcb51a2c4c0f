"""Settings from the environment: defaults, order of ports, Kubernetes' service links, faults by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from muelle.errors import SettingsError
from service.settings import Settings, describe

MUELLE_LINKS = {
    "MUELLE_SERVICE_HOST": "10.0.0.1",
    "MUELLE_SERVICE_PORT": "80",
    "MUELLE_SERVICE_PORT_HTTP": "80",
    "MUELLE_PORT": "tcp://10.0.0.1:80",
    "MUELLE_PORT_80_TCP": "tcp://10.0.0.1:80",
    "MUELLE_PORT_80_TCP_PROTO": "tcp",
    "MUELLE_PORT_80_TCP_PORT": "80",
    "MUELLE_PORT_80_TCP_ADDR": "10.0.0.1",
}
OTHER_LINKS = {
    "MUELLE_A_SERVICE_HOST": "10.0.0.2",
    "MUELLE_A_SERVICE_PORT": "9090",
    "MUELLE_A_SERVICE_PORT_METRICS": "9090",
    "MUELLE_A_PORT": "udp://10.0.0.2:53",
    "MUELLE_A_PORT_53_UDP": "udp://10.0.0.2:53",
    "MUELLE_A_PORT_53_UDP_PROTO": "udp",
    "MUELLE_A_PORT_53_UDP_PORT": "53",
    "MUELLE_A_PORT_53_UDP_ADDR": "10.0.0.2",
    "MUELLE_MAX_ROWS_PORT": "sctp://[fd00::1]:7",
    "MUELLE_MAX_ROWS_PORT_7_SCTP_ADDR": "fd00::1",
}


def faults(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ(environ)
    return str(raised.value).splitlines()


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environ({"PATH": "/bin", "HOME": "/"})
    assert settings == Settings()
    assert (settings.port, settings.workers, settings.threads, settings.max_body_bytes) == (8080, 2, 2, 16_777_216)
    assert settings.api_keys_file is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


def test_an_ipv6_address_may_stand_in_brackets() -> None:
    assert Settings.from_environ({"MUELLE_HOST": "[::1]"}).host == "::1"


def test_every_setting_is_read_from_its_variable() -> None:
    given = {
        "models": ("/m:/opt/m", (Path("/m"), Path("/opt/m"))),
        "serve": ("iris@1, linear ,iris@1", ("iris@1", "linear")),
        "default_model": ("iris", "iris"),
        "host": ("::", "::"),
        "port": ("9000", 9000),
        "workers": ("4", 4),
        "threads": ("1", 1),
        "engine": ("joblib", "joblib"),
        "allowed_modules": ("mine, mine.sub ,other,mine", ("mine", "mine.sub", "other")),
        "max_body_bytes": ("1024", 1024),
        "max_rows": ("7", 7),
        "max_concurrency": ("8", 8),
        "request_timeout_seconds": ("2.5", 2.5),
        "graceful_timeout_seconds": ("20", 20),
        "keepalive_seconds": ("0", 0),
        "max_requests": ("1000", 1000),
        "max_requests_jitter": ("100", 100),
        "api_keys_file": ("/etc/keys", Path("/etc/keys")),
        "log_level": ("debug", "debug"),
        "access_log": ("False", False),
        "drift": ("no", False),
        "metrics_dir": ("/tmp/m", Path("/tmp/m")),
        "metrics_port": ("9090", 9090),
        "tracing": ("true", True),
        "feedback_rows": ("0", 0),
        "feedback_peers": ("muelle-pods.ns.svc:8080", "muelle-pods.ns.svc:8080"),
        "prediction_log": ("s3://bucket/log/", "s3://bucket/log"),
        "prediction_log_sample": ("0.1", 0.1),
        "prediction_log_redact": ("name, birth date", ("name", "birth date")),
        "prediction_log_spool": ("/spool", Path("/spool")),
        "prediction_log_spool_bytes": ("1048576", 1_048_576),
        "prediction_log_seconds": ("5", 5.0),
        "ui": ("on", True),
    }
    assert set(given) == {field.name for field in dataclasses.fields(Settings)}
    settings = Settings.from_environ({f"MUELLE_{name.upper()}": text for name, (text, _) in given.items()})
    for name, (_, value) in given.items():
        assert getattr(settings, name) == value
        assert getattr(Settings(), name) != value or name == "port"


def test_the_port_comes_from_the_strongest_that_is_set() -> None:
    environ: dict[str, str] = {}
    for key, port in (("PORT", 1), ("SAGEMAKER_BIND_TO_PORT", 2), ("AIP_HTTP_PORT", 3), ("MUELLE_PORT", 65535)):
        environ[key] = str(port)
        assert Settings.from_environ(environ).port == port


def test_a_platforms_port_may_be_empty_or_overruled_but_not_wrong() -> None:
    assert Settings.from_environ({"AIP_HTTP_PORT": "", "PORT": "5000"}).port == 5000
    assert Settings.from_environ({"MUELLE_PORT": "81", "PORT": "no number"}).port == 81
    assert faults(AIP_HTTP_PORT="eighty", PORT="80") == [
        "AIP_HTTP_PORT: expected a whole number from 1 to 65535, got 'eighty'"
    ]


@pytest.mark.parametrize("port", ["0", "65536", "-1", "80.0", " 80", "٨٠", "", "http", "9" * 5000])
def test_a_bad_port_is_refused(port: str) -> None:
    (fault,) = faults(MUELLE_PORT=port)
    assert fault.startswith("MUELLE_PORT: expected a whole number from 1 to 65535, got '")
    assert len(fault) < 150


def test_service_links_are_neither_settings_nor_typing_errors() -> None:
    assert Settings.from_environ(MUELLE_LINKS | OTHER_LINKS) == Settings()
    assert Settings.from_environ(MUELLE_LINKS | OTHER_LINKS | {"PORT": "5000"}).port == 5000


@pytest.mark.parametrize(("key", "text"), [*MUELLE_LINKS.items(), *OTHER_LINKS.items()])
def test_each_service_link_alone_is_left_alone(key: str, text: str) -> None:
    assert Settings.from_environ({key: text}) == Settings()


def test_what_only_resembles_a_service_link_is_refused() -> None:
    assert faults(MUELLE_HTTP_PORT="8080") == ["MUELLE_HTTP_PORT: no such setting; did you mean MUELLE_PORT?"]
    assert faults(MUELLE_A_PORT_80_HTTP="tcp://10.0.0.1:80")[0].startswith("MUELLE_A_PORT_80_HTTP: no such setting")
    assert faults(MUELLE_PORT="http://10.0.0.1")[0].startswith("MUELLE_PORT: expected")


def test_no_setting_has_a_name_that_kubernetes_may_use() -> None:
    for line in describe():
        # Not good for any setting, so a key that were taken for a link would pass here.
        bad = {"MUELLE_SERVE": "/", "MUELLE_PREDICTION_LOG_REDACT": ","}.get(line.key, "")
        assert faults(**{line.key: bad}) == [f"{line.key}: expected {line.type}, got {bad!r}"]
        if line.default:
            assert Settings.from_environ({line.key: line.default}) == Settings()


def test_a_password_in_a_url_is_not_repeated() -> None:
    (fault,) = faults(MUELLE_PREDICTION_LOG="s3://key:hunter2@bucket/log")
    assert fault.endswith("got 's3://…@bucket/log'")


def test_a_typing_error_gets_the_nearest_name_and_keeps_its_value_to_itself() -> None:
    assert faults(MUELLE_WORKRES="3") == ["MUELLE_WORKRES: no such setting; did you mean MUELLE_WORKERS?"]
    assert "hunter2" not in faults(MUELLE_API_KEY="hunter2")[0]
    (fault,) = faults(MUELLE_XYZZY="1")
    assert "known are MUELLE_ACCESS_LOG, " in fault


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("MUELLE_WORKERS", "0", "a whole number of processes, 1 or more"),
        ("MUELLE_MAX_BODY_BYTES", "16MiB", "a whole number of bytes, 1 or more"),
        ("MUELLE_MAX_REQUESTS", "-1", "a whole number of requests, 0 or more"),
        ("MUELLE_REQUEST_TIMEOUT_SECONDS", "0", "a number of seconds above 0"),
        ("MUELLE_REQUEST_TIMEOUT_SECONDS", "nan", "a number of seconds above 0"),
        ("MUELLE_REQUEST_TIMEOUT_SECONDS", "inf", "a number of seconds above 0"),
        ("MUELLE_ENGINE", "ONNX", "one of auto, onnx, joblib, skops"),
        ("MUELLE_LOG_LEVEL", "verbose", "one of debug, info, warning, error, critical"),
        ("MUELLE_ACCESS_LOG", "maybe", "true or false"),
        ("MUELLE_ALLOWED_MODULES", "a,,b", "module names, separated by commas"),
        ("MUELLE_ALLOWED_MODULES", "a; b", "module names, separated by commas"),
        ("MUELLE_FEEDBACK_PEERS", "pods", "HOST:PORT"),
        ("MUELLE_FEEDBACK_PEERS", "pods:0", "HOST:PORT"),
        ("MUELLE_PREDICTION_LOG", "oci://registry/log", "a folder, or a URL with s3, gs, az or file"),
        ("MUELLE_PREDICTION_LOG_SAMPLE", "1.5", "a number from 0 to 1"),
        ("MUELLE_PREDICTION_LOG_SAMPLE", "nan", "a number from 0 to 1"),
        ("MUELLE_MODELS", "/models:", "folders, separated by ':'"),
        ("MUELLE_MODELS", "/models::/opt", "folders, separated by ':'"),
        ("MUELLE_SERVE", "iris,", "NAME or NAME@VERSION, separated by commas"),
        ("MUELLE_SERVE", "iris@", "NAME or NAME@VERSION, separated by commas"),
        ("MUELLE_SERVE", "iris@1@2", "NAME or NAME@VERSION, separated by commas"),
        ("MUELLE_SERVE", "../iris", "NAME or NAME@VERSION, separated by commas"),
        ("MUELLE_DEFAULT_MODEL", "../iris", "a model's name"),
        ("MUELLE_HOST", "a b", "a host name or address"),
        ("MUELLE_API_KEYS_FILE", "", "a path"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(key: str, text: str, expected: str) -> None:
    assert faults(**{key: text}) == [f"{key}: expected {expected}, got {text!r}"]


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_serve_is_an_unset_one(text: str) -> None:
    # A chart's template has the variable in any case, so that tools can set it.
    assert Settings.from_environ({"MUELLE_SERVE": text}) == Settings()


def test_all_faults_come_at_once() -> None:
    found = faults(MUELLE_THREADS="two", MUELLE_MODEL="m", MUELLE_PORT="x")
    assert [fault.partition(":")[0] for fault in found] == ["MUELLE_MODEL", "MUELLE_PORT", "MUELLE_THREADS"]


def test_the_table_describes_every_setting() -> None:
    table = {line.key: line for line in describe()}
    assert list(table) == [f"MUELLE_{field.name.upper()}" for field in dataclasses.fields(Settings)]
    assert table["MUELLE_MAX_BODY_BYTES"].default == "16777216"
    assert table["MUELLE_ACCESS_LOG"].default == "true"
    assert table["MUELLE_API_KEYS_FILE"].default == ""
    assert all(line.type and line.help.endswith(".") for line in table.values())
