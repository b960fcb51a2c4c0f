"""Scanning and loading pickles: real estimators come back whole, real attacks are refused before they run."""

from __future__ import annotations

import bz2
import collections
import datetime
import functools
import io
import lzma
import os
import pickle
import posix
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import scipy.stats
import sklearn.utils.validation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import BisectingKMeans, FeatureAgglomeration, KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, mutual_info_classif
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern, WhiteKernel
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.metrics import f1_score, make_scorer
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils import all_estimators, check_array

from muelle.bundle import allowlist
from muelle.bundle.pickle_loader import load_checked
from muelle.bundle.pickles import load_pickle, scan_pickle
from muelle.errors import EngineError, UnsafePickleError

N_SAMPLES = 90
RNG = np.random.default_rng(7)
X = RNG.normal(size=(N_SAMPLES, 4))
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
Y3 = np.array(["north", "south", "west"], dtype=object)[np.digitize(X[:, 0], [-0.5, 0.5])]
TARGET = X[:, 0] * 2 + 1
MIXED = np.empty((N_SAMPLES, 3), dtype=object)
MIXED[:, 0] = X[:, 0]
MIXED[:, 1] = RNG.choice(["red", "green", "bleu d'été"], N_SAMPLES)
MIXED[:, 2] = RNG.choice(["a", "b"], N_SAMPLES)
TEXTS = np.array([f"word{i % 7} and word{i % 3}" for i in range(N_SAMPLES)], dtype=object)


def columns_pipeline() -> Any:
    return make_pipeline(
        ColumnTransformer([("number", StandardScaler(), [0]), ("name", OneHotEncoder(), [1, 2])]), LogisticRegression()
    )


def sparse_model() -> Any:
    return LogisticRegression(C=0.1).fit(X, Y).sparsify()


def with_random_state() -> Any:
    state = np.random.RandomState(np.random.PCG64(3))
    return RandomForestClassifier(4, random_state=state).fit(X, Y)


MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "logistic": (lambda: LogisticRegression().fit(X, Y), X),
    "string classes": (lambda: LogisticRegression().fit(X, Y3), X),
    "sparse coefficients": (sparse_model, X),
    "columns with strings": (lambda: columns_pipeline().fit(MIXED, Y), MIXED),
    "forest": (lambda: RandomForestClassifier(5, random_state=0).fit(X, Y3), X),
    "random state": (with_random_state, X),
    "boosting": (lambda: GradientBoostingClassifier(n_estimators=4, random_state=0).fit(X, Y), X),
    "hist boosting": (lambda: HistGradientBoostingClassifier(max_iter=4, random_state=0).fit(X, Y), X),
    "hist boosting, 3 classes": (lambda: HistGradientBoostingClassifier(max_iter=4).fit(X, Y3), X),
    "hist boosting, quantile": (
        lambda: HistGradientBoostingRegressor(max_iter=4, loss="quantile", quantile=0.5).fit(X, TARGET),
        X,
    ),
    "svc": (lambda: SVC(random_state=0).fit(X, Y3), X),
    "kd tree": (lambda: KNeighborsClassifier(algorithm="kd_tree", p=3).fit(X, Y), X),
    "ball tree": (lambda: KNeighborsClassifier(algorithm="ball_tree", metric="manhattan").fit(X, Y), X),
    "k-means": (lambda: KMeans(3, n_init=1, random_state=0).fit(X), X),
    "bisecting k-means": (lambda: BisectingKMeans(3, random_state=np.random.RandomState(1)).fit(X), X),
    "agglomeration": (lambda: make_pipeline(FeatureAgglomeration(2), LogisticRegression()).fit(X, Y), X),
    "mlp": (lambda: MLPClassifier((5,), solver="lbfgs", max_iter=2000, alpha=1.0, random_state=0).fit(X, Y), X),
    "gaussian process": (
        lambda: GaussianProcessRegressor(RBF() + Matern() + WhiteKernel(), optimizer=None, random_state=0).fit(
            X, TARGET
        ),
        X,
    ),
    "isotonic": (lambda: IsotonicRegression(out_of_bounds="clip").fit(X[:, 0], TARGET), X[:, 0]),
    "splines": (lambda: make_pipeline(SplineTransformer(), LinearRegression()).fit(X, TARGET), X),
    "isolation forest": (lambda: IsolationForest(n_estimators=5, random_state=0).fit(X), X),
    "k best": (lambda: make_pipeline(SelectKBest(k=2), LogisticRegression()).fit(X, Y), X),
    "k best of a partial": (
        lambda: make_pipeline(
            SelectKBest(functools.partial(mutual_info_classif, random_state=0), k=2), LogisticRegression()
        ).fit(X, Y),
        X,
    ),
    "function": (
        lambda: make_pipeline(FunctionTransformer(np.log1p), LinearRegression()).fit(np.abs(X), TARGET),
        np.abs(X),
    ),
    "target": (
        lambda: TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1).fit(X, TARGET**2),
        X,
    ),
    "text": (lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, Y), TEXTS),
    "search": (
        lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, scoring=make_scorer(f1_score), cv=2).fit(X, Y),
        X,
    ),
    "random search": (
        lambda: RandomizedSearchCV(LogisticRegression(), {"C": [0.1, 1]}, n_iter=1, cv=2, random_state=0).fit(X, Y),
        X,
    ),
    "calibrated": (lambda: CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=2).fit(X, Y), X),
    "voting": (lambda: VotingClassifier([("a", LogisticRegression()), ("b", SVC())]).fit(X, Y), X),
    "stacking": (lambda: StackingClassifier([("a", LogisticRegression()), ("b", SVC())], cv=2).fit(X, Y3), X),
    "kernel function": (lambda: SVC(kernel=rbf_kernel).fit(X, Y), X),
    "sgd": (lambda: make_pipeline(PCA(2, random_state=0), SGDClassifier(random_state=0)).fit(X, Y), X),
    "kernel ridge": (lambda: KernelRidge(kernel="rbf").fit(X, TARGET), X),
}


def dump_joblib(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(value, buffer, **options)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Any], bytes]] = {
    "joblib": dump_joblib,
    "joblib zlib": functools.partial(dump_joblib, compress=3),
    "joblib protocol 2": functools.partial(dump_joblib, protocol=2),
    "joblib protocol 5": functools.partial(dump_joblib, protocol=5),
    **{f"pickle {protocol}": functools.partial(pickle.dumps, protocol=protocol) for protocol in range(6)},
}


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {name: make() for name, (make, _) in MODELS.items()}


class TestRoundTrip:
    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("model", MODELS)
    def test_a_fitted_estimator_predicts_the_same(self, fitted: dict[str, Any], model: str, kind: str) -> None:
        sample = MODELS[model][1].copy()  # kernels take a shortcut for the very array they were fitted with
        data = FORMATS[kind](fitted[model])
        loaded = load_pickle(data, "model.joblib")
        assert type(loaded) is type(fitted[model])
        for method in ("predict", "predict_proba", "decision_function"):
            if hasattr(fitted[model], method):
                assert_array_equal(getattr(loaded, method)(sample), getattr(fitted[model], method)(sample))

    @pytest.mark.parametrize("kind", FORMATS)
    def test_boosting_by_the_categories_of_a_frame(self, kind: str) -> None:
        """Its preprocessor holds a partial of ``sklearn.utils.validation.check_array``."""
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"pay": X[:, 0], "colour": pandas.Categorical(MIXED[:, 1])})
        frame.loc[::7, "pay"] = np.nan
        frame.loc[::11, "colour"] = None
        model = HistGradientBoostingClassifier(max_iter=4, categorical_features="from_dtype").fit(frame, Y)
        data = FORMATS[kind](model)
        assert "sklearn.utils.validation.check_array" in scan_pickle(data)
        assert_array_equal(load_pickle(data, "a").predict_proba(frame), model.predict_proba(frame))

    @pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz"])
    def test_each_compression_of_joblib(self, method: str, fitted: dict[str, Any]) -> None:
        data = dump_joblib(fitted["forest"], compress=(method, 3))
        assert_array_equal(load_pickle(data, "model.joblib").predict(X), fitted["forest"].predict(X))
        assert scan_pickle(data) == scan_pickle(dump_joblib(fitted["forest"]))

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize(
        "dtype",
        [
            "f8", ">f8", "<i4", ">i2", "?", "c16", "S5", "U3", ">U3", "M8[25us]", "m8[D]", "M8", "V7", "f2",
            [("a", "f8"), ("b", "u1")],
            [("a", "f8", (2, 3)), ("b", [("c", ">i4")])],
            np.dtype([("a", "u1"), ("b", "f8")], align=True),
            {"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [3, 16], "itemsize": 32},
        ],
        ids=str,
    )  # fmt: skip
    def test_arrays_of_each_dtype(self, dtype: Any, kind: str) -> None:
        for shape in ((), (0,), (3,), (2, 3), (4, 0)):
            array = np.zeros(shape, dtype)
            if array.dtype.kind in "SU":
                array[...] = "ab"
            loaded = load_pickle(FORMATS[kind]({"array": array}), "a")["array"]
            assert_array_equal(loaded, array)
            assert loaded.dtype in (array.dtype, array.dtype.newbyteorder("="))
            assert loaded.dtype.isalignedstruct == array.dtype.isalignedstruct
            assert loaded.dtype.hasobject == array.dtype.hasobject
            assert loaded.flags.writeable

    @pytest.mark.parametrize("kind", FORMATS)
    def test_arrays_of_each_layout_and_of_objects(self, kind: str, tmp_path: Path) -> None:
        on_disk = np.memmap(tmp_path / "map", dtype="f8", mode="w+", shape=(3,))
        on_disk[:] = [1, 2, 3]
        value = {
            "C": np.arange(6.0).reshape(2, 3),
            "F": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "strided": np.arange(12.0).reshape(3, 4)[::2, 1:],
            "objects": np.array([["a", None], [1.5, {"b": np.arange(3)}]], dtype=object),
            "empty objects": np.array([], dtype=object),
            "masked": np.ma.array([1, 2, 3], mask=[0, 1, 0]),
            "masked objects": np.ma.array(["a", None], mask=[0, 1], dtype=object),
            "map": on_disk,
            "scalar": np.float32(1.5),
            "day": np.datetime64("2024-02-29", "D"),
        }
        loaded = load_pickle(FORMATS[kind](value), "a")
        for name in ("C", "F", "strided", "masked", "map"):
            assert_array_equal(loaded[name], value[name])
        assert loaded["F"].flags.f_contiguous
        assert_array_equal(loaded["masked"].mask, [False, True, False])
        assert loaded["objects"][0].tolist() == ["a", None]
        assert_array_equal(loaded["objects"][1, 1]["b"], [0, 1, 2])
        assert loaded["empty objects"].shape == (0,)
        assert loaded["masked objects"].tolist() == ["a", None]
        assert type(loaded["map"]) is np.ndarray
        assert loaded["scalar"] == np.float32(1.5)
        assert loaded["day"] == value["day"]

    @pytest.mark.parametrize("kind", FORMATS)
    def test_plain_values(self, kind: str) -> None:
        value = [
            {1, "a", (2, 3)}, frozenset({b"b"}), bytearray(b"c"), bytearray(), 1j, slice(1, None), range(3), object,
            collections.OrderedDict(a=1), collections.defaultdict(int, b=2), collections.Counter("abca"),
            collections.deque([1, 2], maxlen=3), datetime.date(2024, 2, 29), datetime.time(12),
            10**40, -0.5, None, True,
            datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=1))), "ü\n", b"\x00\xff",
            {"nested": [{}, [], ()]}, np.float64, np.sqrt,
        ]  # fmt: skip
        assert load_pickle(FORMATS[kind](value), "a") == value

    def test_shared_references_stay_shared(self) -> None:
        array, dtype = np.arange(3), np.dtype([("a", "f8")])
        loaded = load_pickle(pickle.dumps([array, array, dtype, dtype]), "a")
        assert loaded[0] is loaded[1]
        assert loaded[2] is loaded[3]

    def test_joblib_arrays_without_padding(self) -> None:
        # joblib before 1.2 wrote none, nor the attribute; a stream that can't tell its position gets None.
        content = np.arange(3.0)
        for rest in (b"", text("numpy_array_alignment_bytes") + b"N"):
            data = stream(wrapper(dtype("f8"), b"K\x03\x85", rest=rest), content.tobytes())
            assert_array_equal(load_pickle(data, "a"), content)

    def test_every_estimator_of_scikit_learn_that_fits_plain_data(self) -> None:
        refused: dict[str, list[str]] = {}
        n_fitted = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, kind in all_estimators():
                try:
                    estimator = kind().fit(np.abs(X[:40]), Y[:40])
                except (TypeError, ValueError, AttributeError, FloatingPointError, np.linalg.LinAlgError):
                    continue  # needs arguments or other data
                n_fitted += 1
                try:
                    load_pickle(dump_joblib(estimator), name)
                except UnsafePickleError as error:
                    refused[name] = [str(error)]
        assert refused == {}
        assert n_fitted > 120


# --- attacks ----------------------------------------------------------------------------------------------------------


class Attack:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "it-ran"
    yield path
    assert not path.exists()


def python(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda marker: Attack(os.system, f"touch {marker}"),
    "posix.system": lambda marker: Attack(posix.system, f"touch {marker}"),
    "os.mkdir": lambda marker: Attack(os.mkdir, str(marker)),
    "subprocess": lambda marker: Attack(subprocess.check_output, ["touch", str(marker)]),
    "subprocess.Popen": lambda marker: Attack(subprocess.Popen, ["touch", str(marker)]),
    "exec": lambda marker: Attack(exec, python(marker)),
    "eval": lambda marker: Attack(eval, python(marker)),
    "open": lambda marker: Attack(open, str(marker), "w"),
    "getattr": lambda marker: Attack(getattr, "text", "upper"),
    "map": lambda marker: Attack(list, Attack(map, os.mkdir, [str(marker)])),
    "partial": lambda marker: functools.partial(os.mkdir, str(marker)),
    "function transformer": lambda marker: FunctionTransformer(os.mkdir),
    "pickle in pickle": lambda marker: Attack(pickle.loads, pickle.dumps(Attack(os.mkdir, str(marker)))),
    "joblib.load": lambda marker: Attack(joblib.load, str(marker)),
    "numpy.load": lambda marker: Attack(np.load, str(marker), None, True),
    "numpy.vectorize": lambda marker: np.vectorize(os.mkdir),
    "thread": lambda marker: Attack(threading.Timer, 0, os.mkdir, (str(marker),)),
    "in a set": lambda marker: {Attack(os.mkdir, str(marker))},
    "as a key": lambda marker: {Attack(os.mkdir, str(marker)): 1},
    "in an array": lambda marker: np.array([1, Attack(os.mkdir, str(marker))], dtype=object),
    "in an array in an array": lambda marker: np.array(
        [None, np.array([Attack(os.mkdir, str(marker)), 2], dtype=object)], dtype=object
    ),
    "in a record": lambda marker: np.array([(1, Attack(os.mkdir, str(marker)))], dtype=[("a", "f8"), ("b", "O")]),
    "after arrays": lambda marker: [np.arange(5), {"b": np.eye(3)}, Attack(os.mkdir, str(marker))],
    "partial of a neighbour of check_array": lambda marker: functools.partial(
        sklearn.utils.validation.check_memory, "a"
    ),
    "in an estimator": lambda marker: make_pipeline(LogisticRegression(C=Attack(os.mkdir, str(marker)))),
}


class TestAttacks:
    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("attack", ATTACKS)
    def test_an_attack_is_refused_and_does_not_run(self, attack: str, kind: str, marker: Path) -> None:
        data = FORMATS[kind](ATTACKS[attack](marker))
        with pytest.raises(UnsafePickleError, match=r"model\.joblib asks for .*MUELLE_ALLOWED_MODULES.*--allow-module"):
            load_pickle(data, "model.joblib")
        assert scan_pickle(data)
        if kind != "joblib zlib":
            with pytest.raises(UnsafePickleError):
                load_checked(data)

    def test_plain_unpickling_would_run_them(self, tmp_path: Path) -> None:
        # Else the tests above would prove nothing.
        for name in ("os.system", "exec", "in an array", "map"):
            path = tmp_path / name.replace(" ", "-")
            joblib.load(io.BytesIO(dump_joblib(ATTACKS[name](path))))
            assert path.exists(), name

    def test_all_refused_globals_are_named(self, marker: Path) -> None:
        data = dump_joblib([Attack(os.mkdir, str(marker)), Attack(eval, "1"), LogisticRegression(), np.arange(3)])
        with pytest.raises(UnsafePickleError, match=r"allow-list: builtins\.eval, posix\.mkdir\. Nothing"):
            load_pickle(data, "model.joblib")

    def test_a_thousand_refused_globals_make_a_short_message(self) -> None:
        data = b"\x80\x04" + b"".join(find(f"evil{i}", "f\n\x1b[2J") for i in range(1000)) + b"N."
        with pytest.raises(UnsafePickleError) as refusal:
            load_pickle(data, "a")
        assert len(str(refusal.value)) < 3000
        assert str(refusal.value).isprintable()

    def test_hints_for_what_users_meet(self) -> None:
        search = {"C": scipy.stats.loguniform(1, 2)}
        with pytest.raises(UnsafePickleError, match="best_estimator_"):
            load_pickle(dump_joblib(search), "a")
        pandas = pytest.importorskip("pandas")
        with pytest.raises(UnsafePickleError, match="as a list"):
            load_pickle(dump_joblib(pandas.Index(["a"])), "a")

    @pytest.mark.parametrize("kind", ["joblib", "joblib protocol 2", "joblib protocol 5"])
    def test_the_array_of_objects_is_read_by_the_same_unpickler(self, kind: str, marker: Path) -> None:
        """Before 1.6, joblib itself reads it with the plain ``pickle.load``."""
        data = FORMATS[kind]({"classes_": np.array(["a", Attack(os.system, f"touch {marker}")], dtype=object)})
        assert "posix.system" in scan_pickle(data)
        with pytest.raises(UnsafePickleError, match=r"posix\.system"):
            load_checked(data)


# --- streams that no pickler writes -----------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def find(module: str, name: str) -> bytes:
    return text(module) + text(name) + pickle.STACK_GLOBAL


def stream(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + pickle.STOP


def value(obj: Any) -> bytes:
    """Return the opcodes that push a plain value, without memo."""
    return pickle.dumps(obj, protocol=2)[2:-1].replace(b"q\x00", b"")


LOGISTIC = find("sklearn.linear_model._logistic", "LogisticRegression")
INSTANCE = find("sklearn._loss.link", "Interval") + b")\x81"  # a plain class, which says nothing of versions
ARRAY = find("numpy._core.multiarray", "_reconstruct") + find("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"


def dtype(code: str, order: str = "<", names: bytes = b"N", fields: bytes = b"N", flags: bytes = b"K\x00") -> bytes:
    state = b"(K\x03" + text(order) + b"N" + names + fields + b"J\xff\xff\xff\xff" * 2 + flags + b"t"
    return find("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state + b"b"


def wrapper(dtype: bytes, shape: bytes, order: str = "C", rest: bytes = b"") -> bytes:
    """Return a joblib array wrapper and its state, without padding; the array's bytes follow."""
    state = b"}(" + text("dtype") + dtype + text("shape") + shape + text("order") + text(order) + rest + b"u"
    return find("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81" + state + b"b"


REFUSED_STREAMS: dict[str, bytes] = {
    "partial of check_array with an argument": pickle.dumps(functools.partial(check_array, [1])),
    "partial of check_array with another keyword": pickle.dumps(functools.partial(check_array, copy=True)),
    "call of check_array": stream(find("sklearn.utils.validation", "check_array"), b"]\x85R"),
    "dotted name": stream(find("sklearn.utils.fixes", "platform.os.getcwd"), b")R"),
    "dotted name, protocol 2": b"\x80\x02csklearn.metrics.pairwise\npartial.__class__\n.",
    "alias of partial": stream(find("sklearn.metrics.pairwise", "partial")),
    "alias of a module": stream(find("sklearn.preprocessing._data", "sparse")),
    "instance of an enum": stream(find("sklearn.utils._metadata_requests", "RequestType"), b"K\x01\x85R"),
    "INST": b"(iposix\ngetcwd\n.",
    "OBJ": b"(" + find("posix", "getcwd") + b"o.",
    "INST of an allowed class": b"(isklearn.linear_model._logistic\nLogisticRegression\n.",
    "old names": b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",
    "old modules": b"\x80\x02ccommands\ngetoutput\nX\x02\x00\x00\x00id\x85R.",
    "global by memo": stream(find("posix", "getcwd"), b"\x94N0", b"0h\x00)R"),
    "extension code": stream(b"\x82\x01"),
    "extension codes, wide": stream(b"\x83\x01\x00"),
    "extension codes, widest": stream(b"\x84\x01\x00\x00\x00"),
    "persistent id": b"\x80\x02Pa\n.",
    "persistent id, binary": stream(text("a"), b"Q"),
    "out-of-band buffer": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05C\x01a\x98.",
    "Python 2 string": b"\x80\x02U\x01a.",
    "name that is no string": stream(b"K\x01", text("a"), pickle.STACK_GLOBAL),
    "module that is a global": stream(find("numpy", "float64"), text("a"), pickle.STACK_GLOBAL),
    "long name": stream(find("numpy", "f" * 300)),
    "call of a value": stream(value("text"), b")R"),
    "call of an instance": stream(INSTANCE, b")R"),
    "call of a class": stream(LOGISTIC, b")R"),
    "call of a function": stream(find("sklearn.metrics._scorer", "get_scorer_names"), b")R"),
    "call of a result": stream(find("numpy._core.multiarray", "_reconstruct"), b")R)R"),
    "arguments that are no tuple": stream(find("builtins", "set"), b"]R"),
    "arguments of a new object": stream(LOGISTIC, b"K\x01\x85\x81"),
    "keywords of a new object": stream(LOGISTIC, b")}" + value("C") + b"K\x01s\x92"),
    "new object of a value": stream(value("text"), b")\x81"),
    "new bit generator without a seed": stream(find("numpy.random._mt19937", "MT19937"), b")\x81"),
    "new array": stream(find("numpy", "ndarray"), b"K\x03\x85\x81"),
    "new file": stream(find("numpy", "memmap"), text("muelle-test-map"), text("u1"), text("w+"), b"\x87R"),
    "array with a buffer": stream(find("numpy", "ndarray"), b"(K\x01\x85", value("O"), b"C\x08AAAAAAAAtR"),
    "array of many": stream(
        find("numpy._core.multiarray", "_reconstruct"), find("numpy", "ndarray"), value(10**12), b"\x85C\x01b\x87R"
    ),
    "state of a class": stream(LOGISTIC, b"}" + text("predict") + b"Nsb"),
    "slots of a class": stream(LOGISTIC, b"N}" + text("predict") + b"Ns\x86b"),
    "state of a function": stream(find("sklearn.metrics._classification", "f1_score"), b"}" + text("a") + b"Nsb"),
    "state of a value": stream(b"]}b"),
    "state twice": stream(INSTANCE, b"}" + text("C") + b"K\x01sb}" + text("C") + b"K\x02sb"),
    "state with __class__": stream(INSTANCE, b"}" + text("__class__") + LOGISTIC + b"sb"),
    "slots with __class__": stream(INSTANCE, b"N}" + text("__class__") + LOGISTIC + b"s\x86b"),
    "items of an instance": stream(INSTANCE, b"K\x01K\x02s"),
    "items appended to an instance": stream(INSTANCE, b"(K\x01K\x02e"),
    "item appended to a class": stream(LOGISTIC, b"K\x01a"),
    "items added to an instance": stream(INSTANCE, b"(K\x01\x90"),
    "array given elements twice": stream(
        ARRAY, b"(K\x01K\x01\x85", dtype("i1"), b"\x89C\x01atb", b"(K\x01K\x01\x85", dtype("i1"), b"\x89C\x01atb"
    ),
    "array longer than its elements": stream(ARRAY, b"(K\x01", value(10**12), b"\x85", dtype("i1"), b"\x89C\x01atb"),
    "objects longer than their list": stream(ARRAY, b"(K\x01K\x09\x85", dtype("O8", "|"), b"\x89]tb"),
    "dtype by a type": stream(find("numpy", "dtype"), find("numpy", "float64"), b"\x89\x88\x87R"),
    "dtype that is not a copy": stream(find("numpy", "dtype"), text("f8"), b"\x89\x89\x87R"),
    "dtype by a structure": stream(find("numpy", "dtype"), text("f8,O"), b"\x89\x88\x87R"),
    "dtype by a name": stream(find("numpy", "dtype"), text("float64"), b"\x89\x88\x87R"),
    "dtype with few arguments": stream(find("numpy", "dtype"), text("f8"), b"\x85R"),
    "dtype used in its own state": stream(
        find("numpy", "dtype"), text("f8"), b"\x89\x88\x87R\x94(K\x03", text("<"),
        b"h\x00NNJ\xff\xff\xff\xffK\x00K\x00tb",
    ),
    "field outside a dtype": stream(
        dtype("V8", "|", text("a") + b"\x85", b"}" + text("a") + dtype("f8") + b"M\xff\x7f\x86s")
    ),
    "field at a negative offset": stream(
        dtype("V8", "|", text("a") + b"\x85", b"}" + text("a") + dtype("f8") + b"J\xf8\xff\xff\xff\x86s")
    ),
    "objects over numbers": stream(
        dtype(
            "V8",
            "|",
            text("a") + text("b") + b"\x86",
            b"}(" + text("a") + dtype("O8", "|") + b"K\x00\x86" + text("b") + dtype("f8") + b"K\x00\x86u",
        )
    ),
    "joblib array cut short": stream(wrapper(dtype("f8"), b"K\x09\x85"), bytes(8)),
    "joblib array of a huge shape": stream(wrapper(dtype("f8"), value(2**62) + value(2**62) + b"\x86"), bytes(8)),
    "joblib array of a negative shape": stream(wrapper(dtype("f8"), b"J\xff\xff\xff\xff\x85"), bytes(8)),
    "joblib array of a boolean shape": stream(wrapper(dtype("f8"), b"\x88\x85"), bytes(8)),
    "joblib array of no width": stream(wrapper(dtype("S0", "|"), value(2**40) + b"\x85")),
    "joblib array without a dtype": stream(wrapper(b"N", b"K\x01\x85"), bytes(8)),
    "joblib array of a list of objects": stream(wrapper(dtype("O8", "|"), b"K\x01\x85"), b"\x80\x04](K\x01e."),
    "joblib array in an array of objects": stream(
        wrapper(dtype("O8", "|"), b"K\x01\x85"), b"\x80\x04", wrapper(dtype("f8"), b"K\x01\x85"), bytes(8), b"."
    ),
    "joblib wrapper by another way": stream(
        find("copyreg", "_reconstructor"), find("joblib.numpy_pickle", "NumpyArrayWrapper"),
        find("builtins", "object"), b"N\x87R}b",
    ),
    "joblib wrapper as a value": stream(
        find("joblib.numpy_pickle", "NumpyArrayWrapper"), b")\x81\x94", b"0h\x00"
    ),
    "old joblib array": stream(find("joblib.numpy_pickle_compat", "NDArrayWrapper"), b")\x81}b"),
    "old joblib file": b"ZF0x10                " + zlib.compress(b"N."),
    "lz4 file": b'\x04"M\x18' + bytes(20),
    "bytearray of a terabyte": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.",
    "bytearray of more than can be": b"\x80\x05\x96" + b"\xff" * 8 + b"abc.",
    "frame of more than can be": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "second pickle": b"N.N.",
    "rest of a frame": b"\x80\x04\x95" + struct.pack("<Q", 8) + b"N." + bytes(6),
    "unknown opcode": b"\xff.",
    "unknown protocol": b"\x80\x63N.",
    "nothing": b"",
    "no value": b".",
    "mark only": b"(.",
    "unhashable key": b"}]K\x01s.",
    "odd number of items": b"}(K\x01u.",
    "deep key": b"}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
    "deep member": b"\x80\x04\x8f()" + b"\x85" * 200_000 + b"\x90.",
    "deep frozen member": b"\x80\x04()" + b"\x85" * 200_000 + b"\x91.",
    "key of exponential size": b"}" + b")" + b"2\x86" * 60 + b"K\x01s.",
    "member of exponential size": stream(find("builtins", "set"), b"](", b")", b"2\x86" * 60, b"e\x85R"),
}  # fmt: skip


class TestForgedStreams:
    @pytest.mark.parametrize("name", REFUSED_STREAMS)
    def test_it_is_refused(self, name: str) -> None:
        with pytest.raises(UnsafePickleError, match="model"):
            load_pickle(REFUSED_STREAMS[name], "model.joblib")

    @pytest.mark.parametrize("name", [name for name in REFUSED_STREAMS if "file" not in name])
    def test_the_second_wall_stops_it_alone(self, name: str) -> None:
        with pytest.raises(Exception) as error:  # noqa: PT011 - load_pickle turns what is not ours into EngineError
            load_checked(REFUSED_STREAMS[name])
        assert not isinstance(error.value, MemoryError)

    def test_process_wide_objects_are_as_before(self) -> None:
        flip = b"(K\x03" + text(">") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        a_copy = load_pickle(stream(find("numpy", "dtype"), text("f8"), b"\x89\x88\x87R", flip), "a")
        assert a_copy == np.dtype(">f8")
        with pytest.raises(UnsafePickleError):
            load_pickle(stream(find("numpy", "dtype"), text("f8"), b"\x89\x89\x87R", flip), "a")
        assert np.dtype("f8").isnative
        for name in ("state of a class", "slots of a class", "state of a function"):
            with pytest.raises(UnsafePickleError):
                load_pickle(REFUSED_STREAMS[name], "a")
        assert callable(LogisticRegression.predict)
        assert not hasattr(f1_score, "a")

    def test_a_flag_does_not_make_numbers_into_objects(self) -> None:
        names, fields = text("a") + b"\x85", b"}" + text("a") + dtype("f8") + b"K\x00\x86s"
        loaded = load_pickle(stream(dtype("V8", "|", names, fields, b"K\x3f")), "a")
        assert loaded == np.dtype([("a", "f8")])
        assert not loaded.hasobject

    def test_state_of_scipy_distributions_is_never_executed(self, marker: Path) -> None:
        """Their ``__setstate__`` runs ``exec`` on one of its strings: a call without a forbidden name."""
        distribution = scipy.stats.uniform
        state = {**distribution.__getstate__(), "_parse_arg_template": python(marker)}
        name = type(distribution).__name__
        data = stream(find("scipy.stats._continuous_distns", name), b")\x81", pickle.dumps(state, 2)[2:-1], b"b")
        with pytest.raises(UnsafePickleError, match=name):
            load_pickle(data, "a")
        with pytest.raises(UnsafePickleError, match=name):
            load_checked(data)

    def test_an_instance_attribute_does_not_stand_in_for_a_method_of_pickle(self) -> None:
        set_state = b"}" + text("__setstate__") + find("sklearn.metrics._scorer", "get_scorer") + b"sb"
        with pytest.raises(UnsafePickleError, match="may not be given"):
            load_pickle(stream(INSTANCE, set_state), "a")

    def test_a_model_never_holds_the_array_type_itself(self) -> None:
        # With a buffer of its own it reads arbitrary memory, and a FunctionTransformer calls what it holds.
        loaded = load_pickle(stream(INSTANCE, b"}" + text("func") + find("numpy", "ndarray") + b"sb"), "a")
        assert loaded.func is not np.ndarray
        loaded = load_pickle(stream(INSTANCE, b"}" + text("func") + find("numpy", "memmap") + b"sb"), "a")
        assert loaded.func is not np.memmap

    def test_what_is_allowed_but_broken_is_an_engine_error(self) -> None:
        for data, cause in (
            (stream(find("sklearn.linear_model._logistic", "NoSuchClass")), AttributeError),
            (stream(find("sklearn.linear_model._no_such_module", "Foo")), ImportError),
            (stream(find("sklearn.tree._tree", "Tree"), b")\x81"), TypeError),
            (stream(find("builtins", "range"), value("a"), b"\x85R"), UnsafePickleError),
        ):
            with pytest.raises((EngineError, UnsafePickleError), match=r"model\.joblib") as error:
                load_pickle(data, "model.joblib")
            assert isinstance(error.value.__cause__, cause)


class TestScan:
    def test_it_names_every_global_once_and_sorted(self) -> None:
        names = scan_pickle(dump_joblib([np.arange(3), np.arange(4), LogisticRegression(), np.array([None])]))
        assert names == tuple(sorted(set(names)))
        assert "numpy.dtype" in names
        assert "joblib.numpy_pickle.NumpyArrayWrapper" in names
        assert "sklearn.linear_model._logistic.LogisticRegression" in names
        assert "numpy._core.multiarray._reconstruct" in names  # of the array of objects

    def test_it_gives_the_names_of_python_3(self) -> None:
        assert scan_pickle(pickle.dumps(Attack(eval, "1"), protocol=2)) == ("builtins.eval",)

    def test_it_imports_nothing(self) -> None:
        module = "sklearn.manifold._t_sne"
        data = stream(find(module, "TSNE"), find("this", "s"))
        code = (
            "import sys; from muelle.bundle.pickles import scan_pickle;"
            f"print(scan_pickle({data!r}), 'this' in sys.modules, 'sklearn' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
        assert run.stdout.strip() == "('sklearn.manifold._t_sne.TSNE', 'this.s') False False"

    def test_array_bytes_are_not_opcodes(self, marker: Path) -> None:
        payload = pickle.dumps(Attack(os.mkdir, str(marker)))
        data = dump_joblib([np.frombuffer(payload, np.uint8), np.frombuffer(payload, np.uint8)])
        assert not any("mkdir" in name for name in scan_pickle(data))
        assert load_pickle(data, "a")[1].tobytes() == payload

    def test_every_refused_stream_is_refused_for_what_it_is(self) -> None:
        # Scanning alone lists names; what can't be followed raises.
        for name in ("persistent id", "extension code", "out-of-band buffer", "nothing", "old joblib file"):
            with pytest.raises(UnsafePickleError, match="the pickle"):
                scan_pickle(REFUSED_STREAMS[name])


class TestCompression:
    @pytest.mark.parametrize("compress", [bz2.compress, functools.partial(lzma.compress, preset=0)])
    def test_a_bomb_is_cut_off(self, compress: Callable[[bytes], bytes]) -> None:
        with pytest.raises(UnsafePickleError, match="decompressed bytes"):
            scan_pickle(compress(bytes(80 * 2**20)))

    def test_zeros_that_zlib_packs_well_pass(self) -> None:
        data = dump_joblib(np.zeros(2**20), compress=("zlib", 9))
        assert len(data) < 2**20 / 100
        assert load_pickle(data, "a").shape == (2**20,)

    def test_a_header_that_asks_for_much_memory(self) -> None:
        header = b"\x5d\x00" + struct.pack("<HQ", 0, 2**40)
        with pytest.raises(UnsafePickleError, match="can't be decompressed"):
            scan_pickle(b"\x5d" + struct.pack("<I", 0xFFFFFF00)[:1] + struct.pack("<I", 0xF0000000)[1:] + header[3:])

    @pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz"])
    def test_truncated_or_followed_by_something(self, method: str) -> None:
        data = dump_joblib(list(range(100)), compress=(method, 3))
        for broken in (data[:-3], data[: len(data) // 2], data[:7], data + b"x", data + data):
            with pytest.raises(UnsafePickleError):
                scan_pickle(broken)


class TestOperatorModules:
    SOURCE = """
from functools import partial
from os import getcwd, system

class Scaler:
    def __init__(self, factor): self.factor = factor
    def predict(self, x): return x * self.factor

class Rebuilt:
    def __init__(self, value): self.value = value
    def __reduce__(self): return rebuild, (self.value,)

def rebuild(value): return Rebuilt(value)
"""

    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        package = tmp_path / "mypackage"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "parts.py").write_text(self.SOURCE)
        monkeypatch.syspath_prepend(tmp_path)
        yield "mypackage.parts"
        for name in ("mypackage", "mypackage.parts"):
            sys.modules.pop(name, None)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_allowed_modules_load(self, module: str, kind: str) -> None:
        parts = __import__(module, fromlist=["Scaler"])
        data = FORMATS[kind]([parts.Scaler(np.arange(3)), parts.Rebuilt(4), parts.rebuild])
        with pytest.raises(UnsafePickleError, match=r"mypackage\.parts\.Scaler"):
            load_pickle(data, "a")
        if kind in ("pickle 0", "pickle 1"):
            return  # their instances come by copyreg, which doesn't serve other classes than scikit-learn's
        for allowed in ("mypackage", "mypackage.parts"):
            scaler, rebuilt, function = load_pickle(data, "a", [allowed])
            assert_array_equal(scaler.predict(2), [0, 2, 4])
            assert rebuilt.value == 4
            assert function is parts.rebuild
        with pytest.raises(UnsafePickleError):
            load_pickle(data, "a", ["mypackage.other", "mypackage.part"])

    @pytest.mark.parametrize("name", ["system", "getcwd", "partial"])
    def test_what_they_import_stays_refused(self, module: str, name: str, marker: Path) -> None:
        data = stream(find(module, name), value(f"touch {marker}"), b"\x85R")
        with pytest.raises(UnsafePickleError, match="while loading"):
            load_pickle(data, "a", [module])


# --- broken files -----------------------------------------------------------------------------------------------------


def small_files() -> dict[str, bytes]:
    model = make_pipeline(
        ColumnTransformer([("number", StandardScaler(), [0]), ("name", OneHotEncoder(), [1])]),
        LogisticRegression(random_state=np.random.RandomState(0)),
    ).fit(MIXED, Y)
    return {name: FORMATS[name](model) for name in FORMATS}


FILES = small_files()


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_refused_wherever_it_is_cut(kind: str) -> None:
    data = FILES[kind]
    for length in {*range(200), *range(0, len(data), 23), *range(len(data) - 50, len(data))}:
        with pytest.raises(UnsafePickleError):
            load_pickle(data[:length], "a")


def edited(data: bytes, edits: list[tuple[float, int]]) -> bytes:
    content = bytearray(data)
    for place, byte in edits:
        content[int(place * len(content))] = byte
    return bytes(content)


EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255) | st.sampled_from(b"Rbst\x81\x90\x93\x94.(q")),
    min_size=1,
    max_size=6,
)
THOROUGH = settings(max_examples=400, suppress_health_check=list(HealthCheck))


def load_or_refuse(data: bytes, loader: Callable[[bytes], Any]) -> None:
    """Load; only the two errors may come out, and none of them for want of memory."""
    cause = None
    try:
        loader(data)
    except (UnsafePickleError, EngineError) as error:
        cause = error.__cause__
    assert not isinstance(cause, MemoryError)


@THOROUGH
@given(kind=st.sampled_from(sorted(FILES)), edits=EDITS)
def test_altered_bytes_come_to_a_value_or_to_our_errors(kind: str, edits: list[tuple[float, int]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_or_refuse(edited(FILES[kind], edits), lambda data: load_pickle(data, "a"))


@THOROUGH
@given(data=st.binary(max_size=200), prefix=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"\x80\x05"]))
def test_any_bytes_come_to_a_value_or_to_our_errors(data: bytes, prefix: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_or_refuse(prefix + data, lambda data: load_pickle(data, "a"))


@THOROUGH
@given(model=st.sampled_from(["forest", "kd tree", "hist boosting", "search"]), edits=EDITS)
def test_altered_models_are_scanned_or_refused(
    model: str, edits: list[tuple[float, int]], fitted: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_or_refuse(edited(dump_joblib(fitted[model]), edits), scan_pickle)


def test_the_scan_and_the_policy_agree_on_every_model(fitted: dict[str, Any]) -> None:
    for name, model in fitted.items():
        found = scan_pickle(dump_joblib(model))
        pairs = [tuple(global_name.rsplit(".", 1)) for global_name in found]
        assert allowlist.refused(pairs) == [], name  # type: ignore[arg-type]
