"""The chart knows the service's settings: each, and no other."""

import json
import re
from dataclasses import fields

from rendering import CHART

from service.settings import Settings

#: What the chart says itself, from values of other names.
OWN = {
    "models",
    "serve",
    "default_model",
    "host",
    "port",
    "request_timeout_seconds",
    "graceful_timeout_seconds",
    "api_keys_file",
    "metrics_dir",
    "metrics_port",
    "feedback_peers",
}


def snake(key):
    return re.sub(r"(?=[A-Z])", "_", key).lower()


def schema():
    return json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]["properties"]


def test_every_setting_of_the_service_can_be_given_in_values():
    assert {snake(key) for key in schema()} == {item.name for item in fields(Settings)} - OWN


def test_what_the_schema_lets_through_the_service_takes():
    example = {"integer": 3, "boolean": True, "number": 0.5, "string": "json"}
    environ = {
        f"MUELLE_{snake(key).upper()}": str(
            kind.get("enum", [max(example[kind["type"]], kind.get("minimum", example[kind["type"]]))])[0]
        ).lower()
        for key, kind in schema().items()
    }
    Settings.from_environ(environ)


def test_each_setting_is_described_by_its_variable():
    for key, kind in schema().items():
        assert kind["description"].startswith(f"MUELLE_{snake(key).upper()},")
