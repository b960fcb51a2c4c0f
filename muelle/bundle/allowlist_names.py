"""The names that a pickled model may hold as values, and where classes and functions call their home.

These are names alone: nothing here imports scikit-learn or scipy, or looks up what a name comes to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

Name = tuple[str, str]

#: Compiled modules that call themselves by a short name (scikit-learn 1.5), and where they are.
_MODULE_ALIASES: Final[Mapping[str, str]] = {"_loss": "sklearn._loss._loss"}

#: Sub-packages of scikit-learn whose classes are estimators or parts of a fitted one.
_SKLEARN_PACKAGE: Final = re.compile(
    "_loss|calibration|cluster|compose|covariance|cross_decomposition|decomposition|discriminant_analysis|dummy|"
    "ensemble|feature_extraction|feature_selection|frozen|gaussian_process|impute|isotonic|kernel_approximation|"
    "kernel_ridge|linear_model|manifold|mixture|model_selection|multiclass|multioutput|naive_bayes|neighbors|"
    "neural_network|pipeline|preprocessing|random_projection|semi_supervised|svm|tree"
)
#: Modules outside these packages of which a fitted estimator holds instances.
_SKLEARN_MODULES: Final = frozenset({"sklearn.metrics._dist_metrics", "sklearn.metrics._scorer"})
#: Sub-packages whose public functions are given to estimators: score functions, kernels, transformations.
_SKLEARN_FUNCTIONS: Final = frozenset({"feature_selection", "metrics", "preprocessing"})
NEW_OBJECT_MODULES: Final = frozenset(
    {"sklearn.metrics._dist_metrics", "sklearn.neighbors._ball_tree", "sklearn.neighbors._kd_tree"}
)
LOSS_MODULES: Final = frozenset({"sklearn._loss._loss", "sklearn.linear_model._sgd_fast"})
#: Where numpy before 2.4 says its ufuncs are.
_NUMPY_UFUNC_MODULES: Final = frozenset({"numpy._core._multiarray_umath", "numpy._core.umath"})
SCIPY_UFUNC_MODULES: Final = frozenset({"scipy.special", "scipy.special._special_ufuncs", "scipy.special._ufuncs"})
CLASS_NAME: Final = re.compile(r"_{0,2}[A-Z]\w*", re.ASCII)
_FUNCTION_NAME: Final = re.compile(r"[a-z]\w*", re.ASCII)
PYX_UNPICKLE: Final = "__pyx_unpickle_"
#: numpy's own functions that estimators take by default or that users commonly give them.
_NUMPY_FUNCTIONS: Final = frozenset({"clip", "max", "mean", "median", "min", "nan_to_num", "prod", "round", "sum"})

#: What histogram gradient boosting converts numeric columns with when ``categorical_features="from_dtype"``, through a
#: partial; the one function of ``sklearn.utils``.
CHECK_ARRAY: Final[Name] = ("sklearn.utils.validation", "check_array")

NAMED: Final[frozenset[Name]] = frozenset(
    [
        *(("builtins", name) for name in ("bool", "dict", "float", "int", "list", "object", "str", "tuple")),
        ("_codecs", "encode"),
        ("numpy", "dtype"),
        ("numpy", "memmap"),  # read as numpy.ndarray, see pickle_loader
        ("numpy", "ndarray"),
        ("numpy.ma", "MaskedArray"),
        ("numpy.ma.core", "MaskedArray"),
        ("numpy.random._mt19937", "MT19937"),
        ("numpy.random._pcg64", "PCG64"),
        ("numpy.random._pcg64", "PCG64DXSM"),
        ("numpy.random._philox", "Philox"),
        ("numpy.random._sfc64", "SFC64"),
        ("numpy.random.bit_generator", "SeedSequence"),
        ("joblib.numpy_pickle", "NumpyArrayWrapper"),
        ("scipy.interpolate._bsplines", "BSpline"),
        ("scipy.interpolate._bsplines", "_BSpline"),  # held by BSpline since scipy 1.18
        ("scipy._lib.array_api_compat.numpy._aliases", "asarray"),  # an attribute of BSpline
        *(
            (f"scipy.sparse._{kind}", f"{kind}_{shape}")
            for kind in ("bsr", "coo", "csc", "csr", "dia")
            for shape in ("array", "matrix")
        ),
        ("sklearn.cluster._kmeans", "_kmeans_single_elkan"),
        ("sklearn.cluster._kmeans", "_kmeans_single_lloyd"),
        ("sklearn.utils._bunch", "Bunch"),
        ("sklearn.utils._metadata_requests", "MetadataRequest"),
        ("sklearn.utils._metadata_requests", "MethodMetadataRequest"),
        CHECK_ARRAY,
    ]
)


def real_name(module: str, name: str) -> Name:
    """Return where a global really is, when it was pickled under numpy 1's or a compiled module's own name."""
    if module.startswith("numpy.core."):
        module = module.replace("numpy.core.", "numpy._core.", 1)
    return _MODULE_ALIASES.get(module, module), name


def is_identifier(module: str, name: str) -> bool:
    """Say whether a name is plain: a dotted one walks through attributes to objects that no list names."""
    return name.isidentifier() and f"{module}.{name}".isascii()


def is_value(module: str, name: str) -> bool:
    """Say whether a model may hold this global as a value."""
    if not is_identifier(module, name):
        return False
    if (module, name) in NAMED:
        return True
    if module == "numpy":
        value = vars(np).get(name)  # not getattr, which would import numpy's lazy sub-packages
        return (
            name in _NUMPY_FUNCTIONS
            or isinstance(value, np.ufunc)
            or (isinstance(value, type) and issubclass(value, np.generic))
        )
    if module in _NUMPY_UFUNC_MODULES:
        return isinstance(vars(np).get(name), np.ufunc)
    if module in SCIPY_UFUNC_MODULES:
        return bool(_FUNCTION_NAME.fullmatch(name))
    return _is_sklearn_class(module, name) or is_sklearn_function(module, name)


def _is_sklearn_class(module: str, name: str) -> bool:
    package = _sklearn_package(module)
    if not _SKLEARN_PACKAGE.fullmatch(package) and module not in _SKLEARN_MODULES:
        return False
    if name.startswith(PYX_UNPICKLE):
        return bool(CLASS_NAME.fullmatch(name.removeprefix(PYX_UNPICKLE)))
    return bool(CLASS_NAME.fullmatch(name)) or (name == "newObj" and module in NEW_OBJECT_MODULES)


def is_sklearn_function(module: str, name: str) -> bool:
    """Say whether a name is that of a public function that estimators are given."""
    # The class rule alone says where newObj is.
    return _sklearn_package(module) in _SKLEARN_FUNCTIONS and bool(_FUNCTION_NAME.fullmatch(name)) and name != "newObj"


def _sklearn_package(module: str) -> str:
    """Return the sub-package of scikit-learn that a module is in; empty when in none, or in tests."""
    parts = module.split(".")
    if len(parts) < 2 or parts[0] != "sklearn" or not all(part.isidentifier() for part in parts):
        return ""
    if any(part.lstrip("_").startswith(("test", "conftest")) for part in parts):
        return ""
    return parts[1]


def is_library_class(kind: object) -> bool:
    """Say whether something is a class of scikit-learn or scipy that a model may hold."""
    if not isinstance(kind, type):
        return False
    module, name = home(kind)
    return module.startswith(("sklearn.", "scipy.")) and is_value(module, name)


def is_class_of(kind: object, module: str, name: str) -> bool:
    """Say whether a class is the named one, or derives from it."""
    return isinstance(kind, type) and any(home(base) == (module, name) for base in kind.__mro__)


def home(obj: object) -> Name:
    """Return the module and name that a class or function calls its own; empty for anything else."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    return real_name(module, name) if isinstance(module, str) and isinstance(name, str) else ("", "")
