"""The policy for pickled models: which globals may be named, called, and given state.

A pickle is a program. It can name any importable object, call it, and write to the attributes of what it made. A fitted
estimator needs few names and far fewer calls, so three lists are kept apart:

* **named**: values that only stand somewhere in the model, such as ``numpy.float64`` or ``sklearn.metrics`` functions;
* **called**: the few callables that pickled arrays, random states, trees and losses are rebuilt with, each with a check
  of its arguments (``numpy.ndarray`` is named, never called: with a buffer of its own it reads arbitrary memory);
* **given state**: instances of scikit-learn and scipy classes, and of the few types that carry one.

The check by name comes first and imports nothing; the check of the resolved object is the second wall, for a name can
be an alias of something defined elsewhere. What an operator allows by module is trusted in all three.

Left out on purpose: ``sklearn.datasets``, ``sklearn.externals``, ``sklearn.utils`` but for three classes, all tests;
``scipy.stats`` distributions, whose ``__setstate__`` runs ``exec`` on a string of the state; pandas and pyarrow
objects, which are rebuilt by general-purpose constructors.

The list stops code, not nonsense. scikit-learn's compiled trees trust their state, so a forged one can crash the
process that predicts with it; a bundle's digests, and who may write to the repository, are what keeps forgeries out.
"""

from __future__ import annotations

import collections
import enum
import functools
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeGuard

import numpy as np

from muelle.errors import UnsafePickleError

Name = tuple[str, str]
Guard = Callable[[Any], bool]

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
_NEW_OBJECT: Final = frozenset(
    {"sklearn.metrics._dist_metrics", "sklearn.neighbors._ball_tree", "sklearn.neighbors._kd_tree"}
)
_LOSSES: Final = frozenset({"sklearn._loss._loss", "sklearn.linear_model._sgd_fast"})
#: Where numpy before 2.4 says its ufuncs are.
_NUMPY_UFUNCS: Final = frozenset({"numpy._core._multiarray_umath", "numpy._core.umath"})
_SCIPY_UFUNCS: Final = frozenset({"scipy.special", "scipy.special._special_ufuncs", "scipy.special._ufuncs"})
_CLASS_NAME: Final = re.compile(r"_{0,2}[A-Z]\w*", re.ASCII)
_FUNCTION_NAME: Final = re.compile(r"[a-z]\w*", re.ASCII)
_PYX_UNPICKLE: Final = "__pyx_unpickle_"
#: numpy's own functions that estimators take by default or that users commonly give them.
_NUMPY_FUNCTIONS: Final = frozenset({"clip", "max", "mean", "median", "min", "nan_to_num", "prod", "round", "sum"})

_NAMED: Final[frozenset[Name]] = frozenset(
    [
        *(("builtins", name) for name in ("bool", "dict", "float", "int", "list", "object", "str", "tuple")),
        ("_codecs", "encode"),
        ("numpy", "dtype"),
        ("numpy", "memmap"),  # read as numpy.ndarray, see pickles
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
    ]
)


def _numbers(args: tuple[Any, ...]) -> bool:
    return all(type(value) in (int, float, bool) or isinstance(value, np.generic) for value in args)


def _optional(args: tuple[Any, ...], *kinds: type) -> bool:
    """Say whether there is no argument, or one of exactly these types."""
    return not args or (len(args) == 1 and type(args[0]) in kinds)


def _default_dict(args: tuple[Any, ...]) -> bool:
    return len(args) <= 1 and all(factory in (None, bool, dict, float, int, list, set, str) for factory in args)


def _deque(args: tuple[Any, ...]) -> bool:
    return not args or (len(args) == 2 and args[0] == () and isinstance(args[1], int))


def _partial(args: tuple[Any, ...]) -> bool:
    # Only score functions and the like: a partial of a rebuilding function would call it later with free arguments.
    return len(args) == 1 and (
        isinstance(args[0], np.ufunc)
        or (isinstance(args[0], types.FunctionType) and _is_sklearn_function(args[0].__module__, args[0].__name__))
    )


def _reconstructor(args: tuple[Any, ...]) -> bool:
    # Protocols 0 and 1 make a plain instance this way, or one of a subclass of dict.
    kind, base, state = args
    return _is_library_class(kind) and ((base is object and state is None) or (base is dict and type(state) is dict))


def _scalar(args: tuple[Any, ...]) -> bool:
    return len(args) == 2 and isinstance(args[0], np.dtype) and not args[0].hasobject and type(args[1]) is bytes


def _from_buffer(args: tuple[Any, ...]) -> bool:
    return (
        len(args) in (4, 5)
        and type(args[0]) in (bytes, bytearray)
        and isinstance(args[1], np.dtype)
        and is_shape(args[2])
        and args[3] in ("C", "F", "K")
        and (len(args) == 4 or args[4] is None or is_shape(args[4]))
    )


def _empty_array(args: tuple[Any, ...]) -> bool:
    return args[0] is np.ndarray and args[1:] in (((0,), b"b"), ((0,), "b"))


def _bit_generator(args: tuple[Any, ...]) -> bool:
    return len(args) == 1 and (
        type(args[0]) is str or (isinstance(args[0], type) and issubclass(args[0], np.random.BitGenerator))
    )


def _random_state(args: tuple[Any, ...]) -> bool:
    # numpy calls a second argument, so it must be the very function that numpy itself pickles there.
    maker = ("numpy.random._pickle", "__bit_generator_ctor")
    return (
        len(args) in (1, 2)
        and isinstance(args[0], np.random.BitGenerator | str)
        and all(isinstance(function, types.FunctionType) and _home(function) == maker for function in args[1:])
    )


def _tree(args: tuple[Any, ...]) -> bool:
    # The constructor reads n_classes without a bounds check.
    return (
        len(args) == 3
        and type(args[0]) is int
        and isinstance(args[1], np.ndarray)
        and type(args[2]) is int
        and args[1].shape == (args[2],)
    )


_CALLED: Final[Mapping[Name, Guard]] = {
    ("builtins", "bytearray"): lambda args: (
        _optional(args, bytes) or (type(args[0]) is str and args[1:] == ("latin-1",))
    ),
    ("builtins", "bytes"): lambda args: args == (),
    ("builtins", "complex"): _numbers,
    ("builtins", "frozenset"): lambda args: _optional(args, list),
    ("builtins", "range"): _numbers,
    ("builtins", "set"): lambda args: _optional(args, list),
    ("builtins", "slice"): lambda args: len(args) == 3,
    ("collections", "Counter"): lambda args: _optional(args, dict),
    ("collections", "OrderedDict"): lambda args: args == (),
    ("collections", "defaultdict"): _default_dict,
    ("collections", "deque"): _deque,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("datetime", "date"): lambda args: _optional(args, bytes),
    ("datetime", "datetime"): lambda args: type(args[0]) is bytes,
    ("datetime", "time"): lambda args: type(args[0]) is bytes,
    ("datetime", "timedelta"): _numbers,
    ("datetime", "timezone"): lambda args: len(args) in (1, 2),
    ("functools", "partial"): _partial,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.ma.core", "_mareconstruct"): lambda args: args[0] is np.ma.MaskedArray and _empty_array(args[1:]),
    ("numpy.random._pickle", "__bit_generator_ctor"): _bit_generator,
    ("numpy.random._pickle", "__generator_ctor"): _random_state,
    ("numpy.random._pickle", "__randomstate_ctor"): _random_state,
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): lambda args: args[0] is np.random.SeedSequence,
    ("sklearn.tree._tree", "Tree"): _tree,
}


def _metric_state(state: Any) -> bool:
    return type(state) is tuple and len(state) in (3, 5) and _are_arrays(state[1:3])


def _binary_tree_state(state: Any) -> bool:
    # (data, indices, node data, node bounds, leaf size, 6 counts, metric, sample weights)
    return (
        type(state) is tuple
        and len(state) == 13
        and _are_arrays(state[:4])
        and all(type(number) is int for number in state[4:11])
        and _home(type(state[11]))[0] == "sklearn.metrics._dist_metrics"
    )


def _are_arrays(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, np.ndarray) for value in values)


#: Compiled modules whose classes take their state from a tuple without looking how long it is.
_STATES: Final[Mapping[str, Guard]] = {
    "sklearn.metrics._dist_metrics": _metric_state,
    "sklearn.neighbors._ball_tree": _binary_tree_state,
    "sklearn.neighbors._kd_tree": _binary_tree_state,
}

#: Types outside scikit-learn and scipy whose instances a pickle may give a state.
_STATEFUL: Final = (
    np.ndarray,
    np.random.BitGenerator,
    np.random.Generator,
    np.random.RandomState,
    np.random.SeedSequence,
    collections.OrderedDict,
    functools.partial,
)


def real_name(module: str, name: str) -> Name:
    """Return where a global really is, when it was pickled under numpy 1's or a compiled module's own name."""
    if module.startswith("numpy.core."):
        module = module.replace("numpy.core.", "numpy._core.", 1)
    return _MODULE_ALIASES.get(module, module), name


def refused(names: Iterable[Name], allowed_modules: Sequence[str] = ()) -> list[str]:
    """Check globals by name, importing nothing of scikit-learn, scipy or the operator's modules.

    Parameters
    ----------
    names : iterable of (str, str)
        Module and attribute of each global.
    allowed_modules : sequence of str
        Modules that the operator trusts; each also allows the modules below it.

    Returns
    -------
    list of str
        The globals that are not allowed as ``module.name``, sorted; empty when all are.
    """
    return sorted({f"{module}.{name}" for module, name in names if not _is_named(module, name, allowed_modules)})


def check_resolved(module: str, name: str, obj: object, allowed_modules: Sequence[str] = ()) -> None:
    """Check what an allowed name turned out to be.

    A name that is on a list word for word is what the list means. Any other must be a class or function that calls an
    allowed module its home, so that an import inside an allowed module (``sklearn.metrics.some_module.os``) doesn't
    open the door to something else.

    Raises
    ------
    UnsafePickleError
        When the object is something else than the name promises.
    """
    home, own_name = _home(obj)
    allowed = _is_named(home, own_name, allowed_modules)
    if _is_trusted(module, allowed_modules):
        # What a trusted module imports (functools.partial, say) doesn't become trusted itself.
        allowed = allowed and _is_trusted(home, allowed_modules)
    elif (module, name) in _NAMED or (module, name) in _CALLED or module == "numpy" or isinstance(obj, np.ufunc):
        allowed = True
    else:
        # An Enum is a class, but its members are shared by the process, so a pickle may not hold them.
        is_class = isinstance(obj, type) and not isinstance(obj, enum.EnumMeta)
        allowed = allowed and module not in _SCIPY_UFUNCS and is_class == bool(_CLASS_NAME.fullmatch(name))
    if not allowed:
        raise UnsafePickleError(
            f"{module}.{name} is {type(obj).__name__} {home}.{own_name}, which is not on the allow-list"
        )


def check_call(module: str, name: str, args: tuple[Any, ...], allowed_modules: Sequence[str] = ()) -> None:
    """Check a call of an allowed global.

    Raises
    ------
    UnsafePickleError
        When the global may be named, but not called, or not with these arguments.
    """
    if _is_trusted(module, allowed_modules):
        return
    guard = _CALLED.get((module, name))
    if guard is not None:
        # A guard looks at arguments that need not be there: an IndexError or TypeError is a "no" like any other.
        try:
            allowed = guard(args)
        except (IndexError, TypeError, ValueError):
            allowed = False
    elif name.startswith(_PYX_UNPICKLE):
        allowed = len(args) == 3 and _is_class_of(args[0], module, name.removeprefix(_PYX_UNPICKLE))
    elif name == "newObj" and module in _NEW_OBJECT:
        allowed = len(args) == 1 and isinstance(args[0], type) and args[0].__module__ == module
    else:
        allowed = module in _LOSSES and bool(_CLASS_NAME.fullmatch(name)) and _numbers(args)
    if not allowed:
        raise UnsafePickleError(f"{module}.{name} may not be called by a pickle with these arguments")


def check_construction(
    module: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], allowed_modules: Sequence[str] = ()
) -> None:
    """Check a call of a class's ``__new__``, which is how a plain instance is made.

    Raises
    ------
    UnsafePickleError
        When it isn't a scikit-learn or scipy class without arguments, `object`, or `complex`.
    """
    if _is_trusted(module, allowed_modules):
        return
    if (module, name) == ("builtins", "complex"):
        allowed = _numbers(args)
    else:
        allowed = args == () and (module.startswith(("sklearn.", "scipy.")) or (module, name) == ("builtins", "object"))
    if kwargs or not allowed:
        raise UnsafePickleError(f"{module}.{name} may not be instantiated by a pickle with these arguments")


def check_state(instance: object, state: object, allowed_modules: Sequence[str] = ()) -> None:
    """Check the state that a pickle gives an instance.

    Raises
    ------
    UnsafePickleError
        When the instance is not of a type that carries state, or the state doesn't fit it.
    """
    kind = type(instance)
    if _is_trusted(kind.__module__, allowed_modules) and not isinstance(instance, type):
        return
    allowed = isinstance(instance, _STATEFUL) or _is_library_class(kind)
    if isinstance(instance, np.ndarray):
        # numpy frees the old buffer, so an array that has elements, and may be shared, is never given new ones.
        allowed = instance.size == 0 and _is_array_state(state)
    elif isinstance(instance, functools.partial):
        allowed = type(state) is tuple and len(state) == 4 and state[0] is instance.func
    elif kind.__module__ in _STATES:
        allowed = allowed and _STATES[kind.__module__](state)
    # An instance attribute of such a name would stand in for a method that Python itself calls.
    for attributes in state if type(state) is tuple and len(state) == 2 else (state,):
        if type(attributes) is dict:
            allowed = allowed and all(type(key) is str and not key.startswith("__") for key in attributes)
    if not allowed:
        raise UnsafePickleError(f"an instance of {kind.__module__}.{kind.__qualname__} may not be given this state")


def is_shape(shape: object) -> TypeGuard[tuple[int, ...]]:
    """Say whether something is an array's shape: a tuple of integers that are not negative."""
    return type(shape) is tuple and all(type(length) is int and length >= 0 for length in shape)


def _is_named(module: str, name: str, allowed_modules: Sequence[str]) -> bool:
    if not name.isidentifier() or not f"{module}.{name}".isascii():
        return False  # a dotted name walks through attributes to objects that no list names
    if _is_trusted(module, allowed_modules):
        return not name.startswith("__") or name.startswith(_PYX_UNPICKLE)
    if (module, name) in _NAMED or (module, name) in _CALLED:
        return True
    if module == "numpy":
        value = vars(np).get(name)  # not getattr, which would import numpy's lazy sub-packages
        return (
            name in _NUMPY_FUNCTIONS
            or isinstance(value, np.ufunc)
            or (isinstance(value, type) and issubclass(value, np.generic))
        )
    if module in _NUMPY_UFUNCS:
        return isinstance(vars(np).get(name), np.ufunc)
    if module in _SCIPY_UFUNCS:
        return bool(_FUNCTION_NAME.fullmatch(name))
    return _is_sklearn_class(module, name) or _is_sklearn_function(module, name)


def _is_sklearn_class(module: str, name: str) -> bool:
    package = _sklearn_package(module)
    if not _SKLEARN_PACKAGE.fullmatch(package) and module not in _SKLEARN_MODULES:
        return False
    if name.startswith(_PYX_UNPICKLE):
        return bool(_CLASS_NAME.fullmatch(name.removeprefix(_PYX_UNPICKLE)))
    return bool(_CLASS_NAME.fullmatch(name)) or (name == "newObj" and module in _NEW_OBJECT)


def _is_sklearn_function(module: str, name: str) -> bool:
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


def _is_trusted(module: str, allowed_modules: Sequence[str]) -> bool:
    return any(module == allowed or module.startswith(f"{allowed}.") for allowed in allowed_modules if allowed)


def _is_library_class(kind: object) -> bool:
    if not isinstance(kind, type):
        return False
    home, name = _home(kind)
    return home.startswith(("sklearn.", "scipy.")) and _is_named(home, name, ())


def _is_class_of(kind: object, module: str, name: str) -> bool:
    """Say whether a class is the named one, or derives from it."""
    return isinstance(kind, type) and any(_home(base) == (module, name) for base in kind.__mro__)


def _home(obj: object) -> Name:
    """Return the module and name that a class or function calls its own; empty for anything else."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    return real_name(module, name) if isinstance(module, str) and isinstance(name, str) else ("", "")


def _is_array_state(state: object) -> bool:
    """Say whether an ndarray's (or masked array's) state holds as many elements as its shape says.

    numpy allocates by the shape alone before it looks at a list of objects.
    """
    if type(state) is not tuple or len(state) not in (5, 7):
        return False
    _, shape, dtype, _, elements = state[:5]
    if not is_shape(shape) or not isinstance(dtype, np.dtype):
        return False
    count = math.prod(shape)
    if dtype.hasobject:
        return type(elements) is list and len(elements) == count
    return type(elements) is bytes and len(elements) == count * dtype.itemsize and (dtype.itemsize > 0 or count == 0)
