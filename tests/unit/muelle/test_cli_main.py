"""The group: help, lazy imports, and errors that are one line."""

import subprocess
import sys

import click
import pytest

from muelle import __version__
from muelle.cli import main
from muelle.cli.lazy import LazyGroup
from muelle.errors import NotFoundError

COMMANDS = list(main.commands_at)
HEAVY = ["sklearn", "pandas", "scipy", "joblib", "onnxruntime", "skl2onnx", "flask", "gunicorn", "training"]


def test_help_lists_every_command(muelle):
    result = muelle("--help")
    assert result.exit_code == 0
    assert {"train", "bundle", "inspect", "verify", "serve", "predict", "check", "list", "diff", "api-key"} <= {
        *COMMANDS
    }
    for name in COMMANDS:
        assert f"  {name}" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(muelle, name):
    result = muelle(name, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"muelle {name}" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name):
    command = main.get_command(click.Context(main), name)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert all(option.help for option in options)


def test_version(muelle):
    assert muelle("--version").output.strip() == f"muelle, version {__version__}"


def test_an_unknown_command_is_wrong_usage(muelle):
    result = muelle("sail")
    assert result.exit_code == 2
    assert "No such command 'sail'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [(["--help"], []), (["list", "--help"], []), (["serve", "--help"], []), (["api-key", "bob"], [])],
)
def test_light_commands_import_nothing_heavy(arguments, allowed):
    code = (
        "import sys\nfrom muelle.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == f"heavy: {allowed}"


def _group(error: BaseException) -> click.Group:
    @click.command()
    def fail() -> None:
        raise error

    group = LazyGroup(name="g", commands_at={"fail": ("unused:unused", "Fail.")})
    group.get_command = lambda ctx, name: fail  # type: ignore[method-assign]
    return group


def test_a_muelle_error_is_one_line_and_exit_code_1():
    result = click.testing.CliRunner().invoke(_group(NotFoundError("no model 'x'; there is y")), ["fail"])
    assert result.exit_code == 1
    assert result.stderr == "Error: no model 'x'; there is y\n"
    assert result.stdout == ""


def test_an_error_cannot_steer_the_terminal():
    result = click.testing.CliRunner().invoke(_group(NotFoundError("no model '\x1b[2Jx'")), ["fail"])
    assert result.stderr == "Error: no model '\\x1b[2Jx'\n"


def test_a_missing_optional_package_says_what_to_install():
    error = ModuleNotFoundError("No module named 'sklearn'", name="sklearn.base")
    result = click.testing.CliRunner().invoke(_group(error), ["fail"])
    assert result.exit_code == 1
    expected = "Error: this needs sklearn, which is not installed: pip install 'muelle[sklearn]'\n"
    assert result.stderr == expected


def test_another_missing_module_is_a_bug_and_shown_as_one():
    result = click.testing.CliRunner().invoke(_group(ModuleNotFoundError("nope", name="nope")), ["fail"])
    assert isinstance(result.exception, ModuleNotFoundError)
