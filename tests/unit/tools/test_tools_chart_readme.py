import json

import pytest

from tools.chart_readme import BEGIN, END, ChartError, describe, documented, main, table, wanted, with_table

VALUES = """\
# About the file.

image:
  # -- What to run,
  # and where from.
  repository: muelle
  # Kept out of the table.
  # -- Its tag.
  tag: ""
# -- Copies.
replicas: 2
# -- Needs.
resources:
  requests: {cpu: 1}
# -- Switch.
on: true
"""


def chart(folder, values=VALUES, *, properties=None):
    inner = {"repository": {"type": "string"}, "tag": {"$ref": "#/definitions/tag"}}
    known = {"image": {"properties": inner}, "replicas": {}, "resources": {"properties": {"x": {}}}, "on": {}}
    (folder / "values.yaml").write_text(values)
    (folder / "README.md").write_text(f"# Chart\n\n{BEGIN}\nold\n{END}\n\nMore.\n")
    (folder / "values.schema.json").write_text(json.dumps({"properties": properties or known}))
    return folder


def test_every_documented_key_has_its_path_type_default_and_text_on_one_line():
    values = documented(VALUES, "values.yaml")
    assert [(".".join(value.path), value.type, value.default, value.text) for value in values] == [
        ("image.repository", "string", "muelle", "What to run, and where from."),
        ("image.tag", "string", "", "Its tag."),
        ("replicas", "integer", 2, "Copies."),
        ("resources", "map", {"requests": {"cpu": 1}}, "Needs."),
        ("on", "boolean", True, "Switch."),
    ]


@pytest.mark.parametrize("values", ["a: 1\n", "# about a\na: 1\n", "a: {}\n", "# -- A map.\n\na: 1\n", "a:\n  b: 1\n"])
def test_a_key_without_a_comment_right_above_it_is_named_with_its_line(values):
    with pytest.raises(ChartError, match=r"values\.yaml:\d+: a(\.b)? has no `# --` comment"):
        documented(values, "values.yaml")


@pytest.mark.parametrize("values", ["- 1\n", "", "a: [\n"])
def test_a_file_that_is_no_map_of_values_is_refused(values):
    with pytest.raises(ChartError, match=r"values\.yaml: "):
        documented(values, "values.yaml")


def test_a_bar_in_a_text_does_not_end_the_cell():
    rows = table(documented("# -- one | two\na: x|y\n", "values.yaml"))
    assert rows.splitlines()[-1] == '| `a` | string | `"x\\|y"` | one \\| two |'


def test_the_table_goes_between_its_marks_and_the_rest_stays():
    assert (
        with_table(f"before\n{BEGIN}\nold\n{END}\nafter\n", "ROWS", "R") == f"before\n{BEGIN}\n\nROWS\n\n{END}\nafter\n"
    )


@pytest.mark.parametrize("readme", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_its_marks_in_order_is_refused(readme):
    with pytest.raises(ChartError, match="expected the line"):
        with_table(readme, "ROWS", "R")


def test_the_schema_gets_the_same_words_also_beside_a_reference():
    schema = {"properties": {"image": {"properties": {"repository": {}, "tag": {"$ref": "#/definitions/t"}}}}}
    describe(schema, documented("image:\n  # -- R.\n  repository: x\n  # -- T.\n  tag: x\n", "v"), "s")
    inner = schema["properties"]["image"]["properties"]
    assert inner == {"repository": {"description": "R."}, "tag": {"$ref": "#/definitions/t", "description": "T."}}


def test_a_key_that_only_one_of_values_and_schema_knows_is_named():
    values = documented("# -- A.\na: 1\n", "v")
    with pytest.raises(ChartError, match="s: no property a"):
        describe({"properties": {}}, values, "s")
    with pytest.raises(ChartError, match=r"s: property b is not in values\.yaml"):
        describe({"properties": {"a": {}, "b": {}}}, values, "s")


def test_what_helm_gives_every_chart_need_not_be_in_values():
    describe({"properties": {"a": {}, "global": {}}}, documented("# -- A.\na: 1\n", "v"), "s")


def test_writing_twice_changes_nothing_the_second_time(tmp_path, capsys):
    folder = chart(tmp_path)
    main([str(folder)])
    assert {line.rsplit("/", 1)[-1] for line in capsys.readouterr().out.split()} == {"README.md", "values.schema.json"}
    assert all(path.read_text() == text for path, text in wanted(folder).items())
    main([str(folder)])
    assert capsys.readouterr().out == ""


def test_checking_names_what_is_out_of_date_and_writes_nothing(tmp_path):
    folder = chart(tmp_path)
    before = (folder / "README.md").read_text()
    with pytest.raises(SystemExit, match=r"README\.md: is not what values\.yaml says; run `make sync`"):
        main(["--check", str(folder)])
    assert (folder / "README.md").read_text() == before
    main([str(folder)])
    main(["--check", str(folder)])


def test_a_chart_without_its_files_ends_with_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"values\.yaml: can't be read: No such file or directory"):
        main([str(tmp_path)])
