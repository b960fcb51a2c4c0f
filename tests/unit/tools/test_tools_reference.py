"""The reference pages are what the code says, and nothing is left out of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from muelle.cli import main as muelle
from service.settings import describe
from tools import reference


def test_every_setting_has_its_line() -> None:
    lines = reference.settings_page().splitlines()
    assert [line for line in lines if line.startswith("| `MUELLE_")] == [
        f"| `{key}` | {kind} | {f'`{default}`' if default else ''} | {why} |" for key, kind, default, why in describe()
    ]


def test_every_command_has_its_help() -> None:
    page = reference.commands_page()
    for name in muelle.commands_at:
        assert f"\n## muelle {name}\n\n```text\nUsage: muelle {name} " in page
    assert "-h, --help" in page


def test_the_committed_pages_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    reference.main(["--check"])
    assert capsys.readouterr().out == ""


def test_a_page_that_is_out_of_date_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "REFERENCE", tmp_path)
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"settings.md: is not what the code says; run `make sync`"):
        reference.main(["--check"])
    reference.main([])
    assert capsys.readouterr().out == "settings.md\ncommands.md\n"
    reference.main(["--check"])
