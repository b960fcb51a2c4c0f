"""A folder of models: what counts as one, in which order, and how it is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from muelle.errors import NotFoundError, SettingsError
from muelle.store import Repository, first_existing, search_list, version_key


@pytest.fixture
def fixture_bundle() -> Path:
    return Path(__file__).parents[3] / "fixtures" / "bundles" / "v1" / "linear" / "1"


@pytest.fixture
def models(tmp_path):
    for place in ("iris/1", "iris/10", "iris/2", "churn/2024-01-05", "churn/2024-01-31", "empty"):
        (tmp_path / place).mkdir(parents=True)
    for ignored in (".tmp-iris-1", ".git/1", "iris/.tmp-3-ab12", "lost+found/1", "iris/with space"):
        (tmp_path / ignored).mkdir(parents=True)
    (tmp_path / "README.md").write_text("a file")
    (tmp_path / "iris" / "notes").write_text("a file")
    return tmp_path


def test_models_and_versions_oldest_first(models):
    found = Repository(models).bundles()
    assert {name: list(versions) for name, versions in found.items()} == {
        "churn": ["2024-01-05", "2024-01-31"],
        "iris": ["1", "2", "10"],
    }
    assert list(found) == ["churn", "iris"]
    assert found["iris"]["10"] == models / "iris" / "10"


def test_a_reference_names_a_version_or_the_newest(models):
    repository = Repository(str(models))
    assert repository.find("iris") == models / "iris" / "10"
    assert repository.find("iris@2") == models / "iris" / "2"
    assert repository.find("churn") == models / "churn" / "2024-01-31"


@pytest.mark.parametrize(("reference", "message"), [
    ("wine", r"no model 'wine' in .*; there is churn, iris"),
    ("wine@1", r"no model 'wine'"),
    ("empty", r"no model 'empty'"),
    ("", r"no model ''"),
    ("../iris", r"no model '\.\./iris'"),
    ("iris@3", r"no version '3' of iris; there is 1, 2, 10"),
    ("iris@../iris/1", r"no version '\.\./iris/1' of iris"),
    ("iris@.tmp-3-ab12", r"no version '\.tmp-3-ab12' of iris"),
])  # fmt: skip
def test_what_is_not_there_is_said_with_what_is(models, reference, message):
    with pytest.raises(NotFoundError, match=message):
        Repository(models).find(reference)


def test_an_empty_repository_has_no_models(tmp_path):
    assert Repository(tmp_path).bundles() == {}
    with pytest.raises(NotFoundError, match="there is none"):
        Repository(tmp_path).find("iris")


def test_no_folder_at_all(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("nowhere", "file"):
        with pytest.raises(NotFoundError, match=f"{name}: no such folder of models"):
            Repository(tmp_path / name).bundles()


def test_the_first_folder_that_exists_is_taken_also_when_it_is_empty(models, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    nowhere = models / "nowhere"
    assert Repository.first_of((nowhere, models)).path == models
    assert Repository.first_of((empty, models)).bundles() == {}
    # A file, where a folder was to be, hides what comes later too.
    assert Repository.first_of((models / "README.md", models)).path == models / "README.md"
    # But nothing can be below a file.
    assert Repository.first_of((models / "README.md" / "models", models)).path == models
    with pytest.raises(NotFoundError, match=f"^{nowhere}, /no/where: no such folder of models$"):
        Repository.first_of((nowhere, Path("/no/where")))


def test_a_link_to_nowhere_is_no_folder(models):
    link = models / "link"
    link.symlink_to("nowhere")
    assert first_existing((link, models)) == models
    # One to itself is there, and wrong.
    loop = models / "loop"
    loop.symlink_to("loop")
    assert first_existing((loop, models)) == loop
    assert first_existing((link,)) is None


def test_a_search_list_has_folders_with_colons_between():
    assert search_list("models") == (Path("models"),)
    assert search_list("/models:/opt/demo") == (Path("/models"), Path("/opt/demo"))
    for text in ("", " ", ":", "/models:", ":/models", "/models: :/opt", "/mod\0els"):
        with pytest.raises(ValueError, match="^" + text):
            search_list(text)


@pytest.mark.parametrize("text", ["iris", "iris\n", "  iris \r\n"])
def test_a_repository_names_its_default_model(models, text):
    assert Repository(models).default_model() is None
    (models / "default-model").write_text(text)
    assert Repository(models).default_model() == "iris"
    assert list(Repository(models).bundles()) == ["churn", "iris"]


@pytest.mark.parametrize("text", ["", "\n", "iris churn", "iris\nchurn", "../iris", "i" * 300, "\udcff"])
def test_a_default_model_that_is_no_name_is_refused(models, text):
    (models / "default-model").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match="default-model: expected a model's name, got '"):
        Repository(models).default_model()


def test_a_default_model_that_can_not_be_read_is_told(models):
    (models / "default-model").mkdir()
    with pytest.raises(SettingsError, match="default-model: can't be read: Is a directory"):
        Repository(models).default_model()


def test_a_file_has_no_default_model(models):
    assert Repository(models / "README.md").default_model() is None


def test_a_bundle_is_a_repository_of_itself(fixture_bundle):
    assert Repository(fixture_bundle).bundles() == {"linear": {"1": fixture_bundle}}
    assert Repository(fixture_bundle).find("linear") == fixture_bundle


def test_a_bundle_that_can_not_be_read_still_has_a_name_to_complain_about(tmp_path, fixture_bundle):
    folder = shutil.copytree(fixture_bundle, tmp_path / "1")
    (folder / "manifest.json").write_text("{")
    assert Repository(folder).bundles() == {"unreadable": {"0": folder}}


def test_a_version_without_a_manifest_counts(models):
    assert not list(models.glob("iris/1/*"))
    assert "1" in Repository(models).bundles()["iris"]


@pytest.mark.parametrize("ascending", [
    ["1", "2", "10", "011", "100"],
    ["1.9", "1.10", "1.10.1", "2.0"],
    ["2024-01-31", "2024-02-01", "2024-10-01"],
    ["beta", "final", "1", "2"],
    ["v1", "v2", "v10"],
    ["1.0rc1", "1.0", "1.0.1", "1.1"],
    ["1-0", "1.0"],
])  # fmt: skip
def test_versions_are_ordered_as_people_count(ascending):
    mixed = list(ascending)
    mixed.reverse()
    assert sorted(mixed, key=version_key) == ascending
