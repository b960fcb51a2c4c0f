"""Tables: dtypes that are meant, and files that are none."""

import io

import pandas as pd
import pyarrow as pa
import pytest

from muelle.cli.tables import code_columns, read_csv, read_parquet, read_table
from muelle.errors import EstimatorError, InputError, MuelleError


def read(text, **dtypes):
    return read_csv(io.BytesIO(text.encode()), "t.csv", dtypes)


def test_what_is_said_is_done():
    table = read("a,b,c,d,e\n01,1,true,2,x\n02,,0,3.5,y\n", a="string", b="int64", c="bool", d="float32")
    assert table["a"].tolist() == ["01", "02"]
    assert table["b"].dtype == "float64"
    assert table["c"].tolist() == [True, False]
    assert table["d"].dtype == "float32"


def test_integers_without_missing_values_are_integers():
    assert read("a,b\n1.0,2\n3,4\n", a="int64")["a"].dtype == "int64"


def test_missing_booleans_stay_missing():
    table = read("a,b\nTrue,1\n,1\n", a="bool")
    assert table["a"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "dtype", "message"),
    [
        ("a,b\n1.5,1\n", "int64", "expected an integer, got"),
        ("a,b\nmaybe,1\n", "bool", "expected true or false, got 'maybe'"),
        ("a,b\nx,1\n", "float64", "t.csv: column 'a' can't be read as float64"),
    ],
)
def test_what_cannot_be_done_is_said(text, dtype, message):
    with pytest.raises(EstimatorError, match="column 'a'") as caught:
        read(text, a=dtype)
    assert message in str(caught.value)


def test_columns_that_are_not_there_are_passed_over():
    assert list(read("a,b\n1,2\n", c="string").columns) == ["a", "b"]


def test_an_index_that_pandas_wrote_is_dropped(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    frame.to_csv(tmp_path / "t.csv")
    assert list(read_table(tmp_path / "t.csv").columns) == ["a", "b"]
    # Another first column without a name may mean something.
    (tmp_path / "t.csv").write_text(",a\n7,1\n9,2\n")
    assert list(read_table(tmp_path / "t.csv").columns) == ["Unnamed: 0", "a"]


def test_parquet_dtypes_can_be_overruled(tmp_path):
    pd.DataFrame({"a": [1, 2]}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", {"a": "string"})["a"].tolist() == ["1", "2"]


@pytest.mark.parametrize("kind", ["path", "file"])
def test_no_thread_of_arrow_holds_a_file_of_pythons(kind, tmp_path, monkeypatch):
    """One that did so when the interpreter ended aborted the command, after its answer and with code 134."""
    path, given = tmp_path / "t.parquet", []
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    frame.to_parquet(path)
    read = pd.read_parquet
    monkeypatch.setattr(pd, "read_parquet", lambda source: given.append(source) or read(source))
    found = read_parquet(path if kind == "path" else io.BytesIO(path.read_bytes()), "t.parquet")
    pd.testing.assert_frame_equal(found, frame)
    assert [isinstance(source, pa.NativeFile) for source in given] == [True]


def test_a_folder_of_parquet_is_a_table(tmp_path):
    for part in (1, 2):
        path = tmp_path / "t.parquet" / f"part-{part}.parquet"
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame({"a": [part]}).to_parquet(path)
    assert read_table(tmp_path / "t.parquet")["a"].tolist() == [1, 2]


def test_codes(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,c,d\n01,10,0,x\n12,20,5,y\n")
    table = read_table(tmp_path / "t.csv")
    assert code_columns(tmp_path / "t.csv", table) == ["a"]
    assert code_columns(tmp_path / "t.csv", read_table(tmp_path / "t.csv", {"a": "string"})) == []


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.parquet", "t.csv"])
def test_unreadable_files_are_named(tmp_path, name):
    with pytest.raises(MuelleError, match=name):
        read_table(tmp_path / name)


WORDS = ["NA", "None", "null", "NaN", "nan", "n/a", "NULL", "<NA>", "#N/A", " "]


def test_in_a_column_of_texts_only_the_empty_cell_is_missing(tmp_path):
    text = "".join(f"{word},{i}\n" for i, word in enumerate(WORDS))
    table = read("a,b\n" + text + ',10\n"",11\n', a="string")
    assert table["a"].tolist()[: len(WORDS)] == WORDS
    assert table["a"].isna().tolist() == [False] * len(WORDS) + [True, True]
    assert table["b"].dtype == "int64"
    (tmp_path / "t.tsv").write_text("a\tb\nNA\tNA\n")
    assert read_table(tmp_path / "t.tsv", {"b": "string"}).isna().to_dict("records") == [{"a": True, "b": False}]


def test_in_a_column_of_numbers_the_words_are_missing_beside_one_of_texts():
    table = read("a,b,c\n" + "".join(f"{word},x,{word}\n" for word in WORDS[:-1]) + "1,y,true\n", b="string", c="bool")
    assert table["a"].dtype == "float64"
    assert table["a"].isna().sum() == table["c"].isna().sum() == len(WORDS) - 1
    assert read("a,b\n" + "".join(f"{word},1\n" for word in WORDS[:-1]))["a"].isna().all()


@pytest.mark.parametrize("dtypes", [{}, {"a": "string", "b": "string"}])
@pytest.mark.parametrize(
    "rows",
    [
        "1,2,3\n4,5,6\n",
        "0,2,3\n1,5,6\n",  # as if it were an index
        "0,2,3\n1,5\n",
        "x,2,y\n",
        "1,2,3,4\n",
    ],
)
def test_rows_with_more_fields_than_the_header_are_refused(rows, dtypes):
    with pytest.raises(InputError, match=r"t\.csv: rows have more fields than the header"):
        read("a,b\n" + rows, **dtypes)


def test_a_single_row_with_more_fields_is_refused():
    with pytest.raises(MuelleError, match=r"t\.csv: can't be read: .*Expected 2 fields in line 3, saw 3"):
        read("a,b\n1,2\n3,4,5\n")
