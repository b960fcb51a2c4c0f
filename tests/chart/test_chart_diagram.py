"""docs/reference/objects.md shows what the chart renders."""

from __future__ import annotations

from rendering import CHART, ROOT

from tools.release_diagram import VIEWS, drawn, main, with_picture

DOCUMENT = ROOT / "docs" / "reference" / "objects.md"


def test_the_pictures_in_the_reference_are_those_of_the_chart() -> None:
    main(["--check", str(CHART), str(DOCUMENT)])


def test_writing_the_pictures_anew_mends_a_document_that_is_out_of_date(tmp_path, capsys) -> None:
    text = DOCUMENT.read_text()
    stale = tmp_path / "objects.md"
    stale.write_text(with_picture(text, "service", "old", "objects.md"))
    main([str(CHART), str(stale)])
    assert stale.read_text() == text
    assert str(stale) in capsys.readouterr().out


def test_only_the_gateway_backend_sends_copies() -> None:
    dotted = {view.name: "copies of" in drawn(CHART, view) for view in VIEWS}
    assert dotted == {"objects": False, "service": False, "replicas": False, "gateway": True}
