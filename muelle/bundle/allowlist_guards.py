"""The callables that a pickled model is rebuilt with, and the instances that carry a state, each with its check."""

from __future__ import annotations

import collections
import functools
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

import numpy as np

from muelle.bundle.allowlist_names import CHECK_ARRAY, Name, home, is_library_class, is_sklearn_function

Guard = Callable[[Any], bool]


def is_shape(shape: object) -> TypeGuard[tuple[int, ...]]:
    """Say whether something is an array's shape: a tuple of integers that are not negative."""
    return type(shape) is tuple and all(type(length) is int and length >= 0 for length in shape)


def are_numbers(args: tuple[Any, ...]) -> bool:
    """Say whether all arguments are plain numbers, of Python or numpy."""
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
        or (
            isinstance(args[0], types.FunctionType)
            and (is_sklearn_function(args[0].__module__, args[0].__name__) or home(args[0]) == CHECK_ARRAY)
        )
    )


def _reconstructor(args: tuple[Any, ...]) -> bool:
    # Protocols 0 and 1 make a plain instance this way, or one of a subclass of dict.
    kind, base, state = args
    return is_library_class(kind) and ((base is object and state is None) or (base is dict and type(state) is dict))


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
        and all(isinstance(function, types.FunctionType) and home(function) == maker for function in args[1:])
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


CALLED: Final[Mapping[Name, Guard]] = {
    ("builtins", "bytearray"): lambda args: (
        _optional(args, bytes) or (type(args[0]) is str and args[1:] == ("latin-1",))
    ),
    ("builtins", "bytes"): lambda args: args == (),
    ("builtins", "complex"): are_numbers,
    ("builtins", "frozenset"): lambda args: _optional(args, list),
    ("builtins", "range"): are_numbers,
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
    ("datetime", "timedelta"): are_numbers,
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
        and home(type(state[11]))[0] == "sklearn.metrics._dist_metrics"
    )


def _are_arrays(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, np.ndarray) for value in values)


def is_partial_state(function: object, state: object) -> bool:
    """Say whether a partial's state is of the function it was made with, and plain when that is `check_array`."""
    if type(state) is not tuple or len(state) != 4 or state[0] is not function:
        return False
    return home(function) != CHECK_ARRAY or _is_check_array_state(*state[1:])


def _is_check_array_state(args: object, keywords: object, attributes: object) -> bool:
    """Say whether `check_array` gets what gradient boosting gives it: float64, missing values let through."""
    if args != () or type(keywords) is not dict or attributes:
        return False
    # scikit-learn 1.6 gave the second keyword its new name.
    if keywords.keys() not in ({"dtype", "ensure_all_finite"}, {"dtype", "force_all_finite"}):
        return False
    kinds = keywords["dtype"]
    finite = keywords.get("ensure_all_finite", keywords.get("force_all_finite"))
    return type(kinds) is list and len(kinds) == 1 and kinds[0] is np.float64 and finite is False


def is_array_state(state: object) -> bool:
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


#: Compiled modules whose classes take their state from a tuple without looking how long it is.
STATES: Final[Mapping[str, Guard]] = {
    "sklearn.metrics._dist_metrics": _metric_state,
    "sklearn.neighbors._ball_tree": _binary_tree_state,
    "sklearn.neighbors._kd_tree": _binary_tree_state,
}

#: Types outside scikit-learn and scipy whose instances a pickle may give a state.
STATEFUL: Final = (
    np.ndarray,
    np.random.BitGenerator,
    np.random.Generator,
    np.random.RandomState,
    np.random.SeedSequence,
    collections.OrderedDict,
    functools.partial,
)
