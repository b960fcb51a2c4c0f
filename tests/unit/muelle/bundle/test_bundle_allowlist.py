"""The policy by itself: what may be named, what a name may turn out to be, and what may be called or given state."""

from __future__ import annotations

import collections
import functools
import importlib
import os
import sys
from pathlib import Path

import joblib.numpy_pickle
import numpy as np
import pytest
import scipy.special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import DistanceMetric, f1_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import BallTree, KDTree
from sklearn.utils import Bunch, check_array
from sklearn.utils.validation import check_is_fitted

from muelle.bundle.allowlist import (
    check_call,
    check_construction,
    check_resolved,
    check_state,
    is_shape,
    real_name,
    refused,
)
from muelle.errors import UnsafePickleError

NEEDED = [
    ("builtins", "object"),
    ("builtins", "slice"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy", "float64"),
    ("numpy", "number"),
    ("numpy", "log1p"),
    ("numpy", "mean"),
    ("numpy._core._multiarray_umath", "log1p"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.random._pickle", "__randomstate_ctor"),
    ("numpy.ma.core", "_mareconstruct"),
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    ("scipy.sparse._csr", "csr_matrix"),
    ("scipy.special._special_ufuncs", "expit"),
    ("sklearn.linear_model._logistic", "LogisticRegression"),
    ("sklearn.multiclass", "_ConstantPredictor"),
    ("sklearn._loss._loss", "__pyx_unpickle_CyHalfMultinomialLoss"),
    ("sklearn.neighbors._kd_tree", "newObj"),
    ("sklearn.metrics._classification", "f1_score"),
    ("sklearn.utils._bunch", "Bunch"),
    ("sklearn.utils.validation", "check_array"),
]

FORBIDDEN = [
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("builtins", "open"),
    ("builtins", "type"),
    ("builtins", "map"),
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("operator", "attrgetter"),
    ("operator", "methodcaller"),
    ("functools", "reduce"),
    ("copyreg", "add_extension"),
    ("copyreg", "__newobj__"),
    ("pickle", "loads"),
    ("importlib", "import_module"),
    ("joblib", "load"),
    ("joblib.numpy_pickle", "load"),
    ("joblib.numpy_pickle_compat", "NDArrayWrapper"),
    ("joblib.memory", "Memory"),
    ("numpy", "load"),
    ("numpy._core._multiarray_umath", "_load_from_filelike"),
    ("numpy._core.umath", "frompyfunc"),
    ("numpy", "loadtxt"),
    ("numpy", "fromfile"),
    ("numpy", "frompyfunc"),
    ("numpy", "vectorize"),
    ("numpy", "f2py"),
    ("numpy", "testing"),
    ("numpy.testing", "assert_equal"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.f2py", "compile"),
    ("numpy.ctypeslib", "load_library"),
    ("numpy.lib._npyio_impl", "load"),
    ("scipy.io", "loadmat"),
    ("scipy.stats._continuous_distns", "uniform_gen"),
    ("scipy.stats._distn_infrastructure", "rv_continuous_frozen"),
    ("sklearn", "datasets"),
    ("sklearn.datasets", "load_files"),
    ("sklearn.datasets._base", "load_files"),
    ("sklearn.externals.array_api_compat", "Array"),
    ("sklearn.utils._testing", "TempMemmap"),
    ("sklearn.utils.parallel", "Parallel"),
    ("sklearn.utils.fixes", "platform"),
    ("sklearn.linear_model.tests.test_base", "Foo"),
    ("sklearn.metrics.tests.test_common", "partial"),
    ("sklearn.conftest", "Foo"),
    ("sklearn._build_utils", "Foo"),
    ("sklearn.linear_model._base", "sparse"),
    ("sklearn.tree._export", "export_graphviz"),
    ("sklearn.metrics._dist_metrics", "__pyx_unpickle_"),
    ("sklearn..metrics", "Foo"),
    ("sklearnx.metrics", "Foo"),
    ("pandas", "read_pickle"),
    ("__main__", "Foo"),
    ("", "system"),
]


@pytest.mark.parametrize("name", NEEDED, ids=".".join)
def test_names_that_fitted_estimators_need_are_allowed(name: tuple[str, str]) -> None:
    assert refused([name]) == []


@pytest.mark.parametrize("name", FORBIDDEN, ids=".".join)
def test_other_names_are_refused(name: tuple[str, str]) -> None:
    assert refused([name]) == [".".join(name)]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sklearn.utils.fixes", "platform.os.system"),
        ("sklearn.metrics", "pairwise.partial"),
        ("sklearn.linear_model", "LogisticRegression.fit"),
        ("numpy", "ndarray.tofile"),
        ("collections", "OrderedDict.fromkeys"),
        ("builtins", "object.__subclasses__"),
        ("mine", "Scaler.inner"),
    ],
)
def test_a_dotted_name_is_refused_in_any_module(module: str, name: str) -> None:
    assert refused([(module, name)], ["mine"]) == [f"{module}.{name}"]


@pytest.mark.parametrize("name", ["", "a b", "système", "a\nb", "0a"])
def test_what_is_no_ascii_identifier_is_refused(name: str) -> None:
    assert refused([("mine", name)], ["mine"])


def test_of_the_validation_functions_of_scikit_learn_only_check_array_is_allowed() -> None:
    module = "sklearn.utils.validation"
    names = [name for name, value in vars(importlib.import_module(module)).items() if callable(value)]
    assert {"check_X_y", "check_array", "check_is_fitted", "check_memory"} <= set(names)
    assert len(refused([(module, name) for name in names])) == len(names) - 1
    assert refused([(module, "check_array")]) == []


def test_refused_names_are_sorted_and_unique() -> None:
    names = [("os", "system"), ("builtins", "eval"), ("os", "system"), ("numpy", "dtype")]
    assert refused(names) == ["builtins.eval", "os.system"]


def test_an_operator_allows_a_module_and_those_below_it() -> None:
    for module in ("mine", "mine.transformers", "mine.a.b"):
        assert refused([(module, "Scaler")], ["mine"]) == []
    assert refused([("mine2", "Scaler"), ("min", "Scaler"), ("x.mine", "Scaler")], ["mine"])
    assert refused([("mine", "Scaler")], ["mine.transformers"]) == ["mine.Scaler"]
    assert refused([("mine", "__loader__")], ["mine"]) == ["mine.__loader__"]
    assert refused([("os", "system")], [""]) == ["os.system"]


def test_the_check_by_name_imports_nothing() -> None:
    absent = "sklearn.semi_supervised._no_such_module"
    assert refused([(absent, "Foo"), ("numpy", "f2py"), ("numpy", "testing")]) == ["numpy.f2py", "numpy.testing"]
    assert absent not in sys.modules


def test_real_name_follows_known_moves_only() -> None:
    assert real_name("numpy.core.multiarray", "scalar") == ("numpy._core.multiarray", "scalar")
    assert real_name("_loss", "CyPinballLoss") == ("sklearn._loss._loss", "CyPinballLoss")
    assert real_name("os", "system") == ("os", "system")


class TestResolved:
    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("sklearn.ensemble._forest", "Parallel"),  # a class of sklearn.utils
            ("sklearn.metrics.pairwise", "partial"),
            ("sklearn.preprocessing._data", "sparse"),
            ("sklearn.preprocessing._data", "stats"),
            ("sklearn.preprocessing._data", "warnings"),
            ("sklearn.feature_selection._base", "attrgetter"),
            ("sklearn.linear_model._base", "ABCMeta"),
            ("sklearn.feature_extraction.text", "Mapping"),
            ("scipy.special", "logsumexp"),
            ("scipy.special", "errstate"),
        ],
    )
    def test_what_an_allowed_module_imports_is_refused(self, module: str, name: str) -> None:
        assert refused([(module, name)]) == []
        found = getattr(importlib.import_module(module), name)
        with pytest.raises(UnsafePickleError, match=f"{module}.{name}"):
            check_resolved(module, name, found)

    def test_what_is_at_home_is_allowed(self) -> None:
        check_resolved("sklearn.linear_model", "LogisticRegression", LogisticRegression)
        check_resolved("sklearn.metrics._classification", "f1_score", f1_score)
        check_resolved("scipy.special", "expit", scipy.special.expit)
        check_resolved("numpy", "log1p", np.log1p)

    def test_a_function_under_a_class_name_and_a_class_under_a_function_name_are_refused(self) -> None:
        for name, found in (("Foo", rbf_kernel), ("foo", LogisticRegression), ("foo", "a string"), ("foo", os)):
            with pytest.raises(UnsafePickleError):
                check_resolved("sklearn.metrics._scorer", name, found)

    def test_what_a_trusted_module_imports_is_not_trusted(self) -> None:
        def transform() -> None: ...

        transform.__module__, transform.__qualname__ = "mine.functions", "transform"
        check_resolved("mine", "transform", transform, ["mine"])
        for found in (os.system, functools.partial, np.ndarray, np.log1p, os, transform.__call__):
            with pytest.raises(UnsafePickleError):
                check_resolved("mine", "alias", found, ["mine"])


class TestCall:
    @pytest.mark.parametrize(
        ("module", "name", "args"),
        [
            ("builtins", "set", ([1, 2],)),
            ("builtins", "bytearray", ()),
            ("builtins", "slice", (None, 2, None)),
            ("collections", "defaultdict", (int,)),
            ("collections", "deque", ((), 5)),
            ("functools", "partial", (f1_score,)),
            ("functools", "partial", (np.log1p,)),
            ("functools", "partial", (check_array,)),
            ("numpy._core.multiarray", "_reconstruct", (np.ndarray, (0,), b"b")),
            ("numpy._core.multiarray", "scalar", (np.dtype("f8"), bytes(8))),
            ("numpy._core.numeric", "_frombuffer", (bytes(8), np.dtype("f8"), (1,), "C")),
            ("numpy.ma.core", "_mareconstruct", (np.ma.MaskedArray, np.ndarray, (0,), "b")),
            ("numpy.random._pickle", "__bit_generator_ctor", (np.random.MT19937,)),
            ("numpy.random._pickle", "__randomstate_ctor", (np.random.MT19937(0),)),
            ("sklearn.neighbors._kd_tree", "newObj", (KDTree,)),
            ("sklearn.linear_model._sgd_fast", "Hinge", (1.0,)),
            ("sklearn.tree._tree", "Tree", (4, np.array([2]), 1)),
            ("copyreg", "_reconstructor", (LogisticRegression, object, None)),
            ("copyreg", "_reconstructor", (Bunch, dict, {"a": 1})),
        ],
    )
    def test_rebuilding_calls_are_allowed(self, module: str, name: str, args: tuple[object, ...]) -> None:
        check_call(module, name, args)

    @pytest.mark.parametrize(
        ("module", "name", "args"),
        [
            ("builtins", "bytes", (10**12,)),
            ("builtins", "bytearray", (10**12,)),
            ("builtins", "list", (range(10**12),)),
            ("builtins", "set", (range(10**12),)),
            ("_codecs", "encode", ("a", "latin1")),  # done by pickles itself
            ("collections", "defaultdict", (LogisticRegression,)),
            ("collections", "Counter", (range(10**12),)),
            ("functools", "partial", (os.system,)),
            ("functools", "partial", (LogisticRegression,)),
            ("functools", "partial", (check_is_fitted,)),
            ("functools", "partial", (check_array, [1])),
            ("sklearn.utils.validation", "check_array", ([1],)),
            ("functools", "partial", (functools.partial,)),
            ("functools", "partial", (f1_score, 1)),
            ("numpy", "ndarray", ((10**12,),)),
            ("numpy", "float64", (1,)),
            ("numpy", "log1p", (1,)),
            ("numpy._core.multiarray", "_reconstruct", (np.ndarray, (10**12,), b"b")),
            ("numpy._core.multiarray", "_reconstruct", (np.dtype("O"), (0,), b"b")),
            ("numpy._core.multiarray", "scalar", (np.dtype("O"), "a")),
            ("numpy._core.multiarray", "scalar", (np.dtype([("a", "O")]), np.array([1]))),
            ("numpy._core.numeric", "_frombuffer", (np.arange(3), np.dtype("f8"), (3,), "C")),
            ("numpy.ma.core", "_mareconstruct", (np.ma.MaskedArray, np.ndarray, (10**12,), "b")),
            ("numpy.random._pickle", "__randomstate_ctor", ("MT19937", LogisticRegression)),
            ("numpy.random._pickle", "__bit_generator_ctor", (LogisticRegression,)),
            ("sklearn.neighbors._kd_tree", "newObj", (BallTree,)),
            ("sklearn._loss._loss", "__pyx_unpickle_CyHalfSquaredError", (KDTree, 1, None)),
            ("sklearn.tree._tree", "Tree", (4, np.array([2]), 1000)),
            ("sklearn.linear_model._logistic", "LogisticRegression", ()),
            ("sklearn.metrics._classification", "f1_score", ([1], [1])),
            ("sklearn.utils._bunch", "Bunch", ()),
            ("scipy.sparse._csr", "csr_matrix", ((10**9, 10**9),)),
            ("copyreg", "_reconstructor", (np.ndarray, object, None)),
            ("copyreg", "_reconstructor", (LogisticRegression, type, None)),
            ("copyreg", "_reconstructor", ()),
        ],
    )
    def test_other_calls_are_refused(self, module: str, name: str, args: tuple[object, ...]) -> None:
        with pytest.raises(UnsafePickleError, match="may not be called"):
            check_call(module, name, args)

    def test_a_trusted_module_is_called_as_it_likes(self) -> None:
        check_call("mine", "make", (1, 2, 3), ["mine"])

    def test_only_plain_instances_are_made(self) -> None:
        check_construction("sklearn.linear_model._logistic", "LogisticRegression", (), {})
        check_construction("builtins", "object", (), {})
        check_construction("builtins", "complex", (1.0, 2.0), {})
        check_construction("mine", "Scaler", (1,), {"a": 2}, ["mine"])
        for module, name, args, kwargs in (
            ("sklearn.linear_model._logistic", "LogisticRegression", (1,), {}),
            ("sklearn.linear_model._logistic", "LogisticRegression", (), {"a": 1}),
            ("numpy.random._mt19937", "MT19937", (), {}),
            ("numpy", "ndarray", ((3,),), {}),
            ("builtins", "bytes", (10**12,), {}),
        ):
            with pytest.raises(UnsafePickleError, match="instantiated"):
                check_construction(module, name, args, kwargs)


class TestState:
    def test_states_that_fit(self) -> None:
        check_state(LogisticRegression(), {"coef_": 1})
        check_state(np.array([], dtype=np.int8), (1, (2,), np.dtype("O"), False, ["a", None]))
        check_state(np.array([], dtype=np.int8), (1, (2,), np.dtype("f8"), False, bytes(16)))
        check_state(functools.partial(f1_score), (f1_score, (), {"average": "macro"}, None))
        for finite in ("ensure_all_finite", "force_all_finite"):
            keywords = {"dtype": [np.float64], finite: False}
            check_state(functools.partial(check_array), (check_array, (), keywords, None))
        check_state(collections.OrderedDict(), {"note": 1})
        for instance in (DistanceMetric.get_metric("euclidean"), KDTree(np.eye(3)), BallTree(np.eye(3))):
            check_state(instance, instance.__getstate__())

    @pytest.mark.parametrize(
        ("instance", "state"),
        [
            (LogisticRegression, {"predict": 1}),
            (LogisticRegression(), {"__class__": Bunch}),
            (LogisticRegression(), (None, {"__class__": Bunch})),
            (LogisticRegression(), {1: 2}),
            (f1_score, {"__code__": 1}),
            (np.arange(3), (1, (2,), np.dtype("f8"), False, bytes(16))),
            (np.array([], dtype=np.int8), (1, (10**12,), np.dtype("O"), False, ["a"])),
            (np.array([], dtype=np.int8), (1, (-1,), np.dtype("f8"), False, b"")),
            (np.array([], dtype=np.int8), (1, (10**12,), np.dtype("V0"), False, b"")),
            (np.array([], dtype=np.int8), (1, (2,), "f8", False, bytes(16))),
            (np.array([], dtype=np.int8), (1, (2,))),
            (np.array([], dtype=np.int8), None),
            (functools.partial(f1_score), (os.system, ("true",), {}, None)),
            (functools.partial(check_array), (check_array, ([1],), {}, None)),
            (functools.partial(check_array), (check_array, (), {"estimator": LogisticRegression()}, None)),
            (functools.partial(check_array), (check_array, (), {"dtype": [np.float64]}, None)),
            *(
                (functools.partial(check_array), (check_array, (), {"dtype": dtype, "ensure_all_finite": finite}, None))
                for dtype, finite in (([Bunch], False), (np.float64, False), ([np.float64], np.zeros(2)), ([], False))
            ),
            (
                functools.partial(check_array),
                (check_array, (), {"dtype": [np.float64], "ensure_all_finite": False}, {"a": 1}),
            ),
            (DistanceMetric.get_metric("euclidean"), (2.0,)),
            (KDTree(np.eye(3)), (np.eye(3),)),
            (np.dtype("f8"), (3, ">", None, None, None, -1, -1, 0)),
            (np.float64(1), ()),
            (joblib.numpy_pickle.NumpyArrayWrapper, {}),
            (Path("a"), {}),
            ("text", {}),
        ],
    )
    def test_states_that_do_not_fit(self, instance: object, state: object) -> None:
        with pytest.raises(UnsafePickleError, match="may not be given"):
            check_state(instance, state)


def test_is_shape() -> None:
    assert is_shape(())
    assert is_shape((0, 3))
    for shape in ([1], (-1,), (True,), (1.0,), None, (np.int64(1),)):
        assert not is_shape(shape)
