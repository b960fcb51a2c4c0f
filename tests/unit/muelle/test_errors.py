"""The tree that is drawn in the module's docstring is the tree of its classes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from muelle import errors
from muelle.errors import InputError, MuelleError


def drawn() -> dict[str, str]:
    """Each class of the drawing but the root, with the class that it hangs from."""
    parents, above = {}, {-1: ""}
    for line in errors.__doc__.splitlines():
        if found := re.match(r"    ([│ ├└─]*)([A-Z]\w+Error)\b", line):
            depth = len(found[1]) // 4
            above[depth] = found[2]
            parents[found[2]] = above[depth - 1]
    return {name: parent for name, parent in parents.items() if parent}


def classes() -> dict[str, type[BaseException]]:
    return {name: value for name, value in vars(errors).items() if inspect.isclass(value)}


def test_the_drawing_is_the_tree():
    actual = {name: cls.__base__.__name__ for name, cls in classes().items() if cls is not MuelleError}
    assert drawn() == actual
    assert len(actual) >= 13


def test_the_root_is_an_exception_and_all_errors_come_from_it():
    assert MuelleError.__base__ is Exception
    assert all(issubclass(cls, MuelleError) for cls in classes().values())


@pytest.mark.parametrize("name", sorted(classes()))
def test_every_error_says_what_it_is_for(name):
    assert classes()[name].__doc__.strip()


def test_an_input_error_has_its_code_and_place():
    error = InputError("expected a number, got true", code="invalid_value", where="features[0][3]")
    assert str(error) == "features[0][3]: expected a number, got true"
    assert (error.code, error.where) == ("invalid_value", "features[0][3]")


def test_an_input_error_about_the_whole_body_has_no_place():
    error = InputError("not JSON", code="invalid_json")
    assert (str(error), error.where) == ("not JSON", "")


@pytest.mark.parametrize("name", sorted(set(classes()) - {"InputError"}))
def test_an_error_crosses_a_process_boundary(name):
    again = pickle.loads(pickle.dumps(classes()[name]("what was wrong")))
    assert type(again) is classes()[name]
    assert str(again) == "what was wrong"
