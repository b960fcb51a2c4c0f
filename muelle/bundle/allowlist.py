"""The policy for pickled models: which globals may be named, called, and given state.

A pickle is a program. It can name any importable object, call it, and write to the attributes of what it made. A fitted
estimator needs few names and far fewer calls, so three lists are kept apart:

* **named**: values that only stand somewhere in the model, such as ``numpy.float64`` or ``sklearn.metrics`` functions;
* **called**: the few callables that pickled arrays, random states, trees and losses are rebuilt with, each with a check
  of its arguments (``numpy.ndarray`` is named, never called: with a buffer of its own it reads arbitrary memory);
* **given state**: instances of scikit-learn and scipy classes, and of the few types that carry one.

The check by name comes first and imports nothing; the check of the resolved object is the second wall, for a name can
be an alias of something defined elsewhere. What an operator allows by module is trusted in all three.

Left out on purpose: ``sklearn.datasets``, ``sklearn.externals``, ``sklearn.utils`` but for three classes and
``check_array``, all tests; ``scipy.stats`` distributions, whose ``__setstate__`` runs ``exec`` on a string of the
state; pandas and pyarrow objects, which are rebuilt by general-purpose constructors.

The list stops code, not nonsense. scikit-learn's compiled trees trust their state, so a forged one can crash the
process that predicts with it; a bundle's digests, and who may write to the repository, are what keeps forgeries out.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from muelle.bundle.allowlist_guards import (
    CALLED,
    STATEFUL,
    STATES,
    are_numbers,
    is_array_state,
    is_partial_state,
    is_shape,
)
from muelle.bundle.allowlist_names import (
    CLASS_NAME,
    LOSS_MODULES,
    NAMED,
    NEW_OBJECT_MODULES,
    PYX_UNPICKLE,
    SCIPY_UFUNC_MODULES,
    Name,
    home,
    is_class_of,
    is_identifier,
    is_library_class,
    is_value,
    real_name,
)
from muelle.errors import UnsafePickleError

__all__ = [
    "Name",
    "check_call",
    "check_construction",
    "check_resolved",
    "check_state",
    "is_shape",
    "real_name",
    "refused",
]


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
    own_module, own_name = home(obj)
    allowed = _is_named(own_module, own_name, allowed_modules)
    if _is_trusted(module, allowed_modules):
        # What a trusted module imports (functools.partial, say) doesn't become trusted itself.
        allowed = allowed and _is_trusted(own_module, allowed_modules)
    elif (module, name) in NAMED or (module, name) in CALLED or module == "numpy" or isinstance(obj, np.ufunc):
        allowed = True
    else:
        # An Enum is a class, but its members are shared by the process, so a pickle may not hold them.
        is_class = isinstance(obj, type) and not isinstance(obj, enum.EnumMeta)
        allowed = allowed and module not in SCIPY_UFUNC_MODULES and is_class == bool(CLASS_NAME.fullmatch(name))
    if not allowed:
        raise UnsafePickleError(
            f"{module}.{name} is {type(obj).__name__} {own_module}.{own_name}, which is not on the allow-list"
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
    guard = CALLED.get((module, name))
    if guard is not None:
        # A guard looks at arguments that need not be there: an IndexError or TypeError is a "no" like any other.
        try:
            allowed = guard(args)
        except (IndexError, TypeError, ValueError):
            allowed = False
    elif name.startswith(PYX_UNPICKLE):
        allowed = len(args) == 3 and is_class_of(args[0], module, name.removeprefix(PYX_UNPICKLE))
    elif name == "newObj" and module in NEW_OBJECT_MODULES:
        allowed = len(args) == 1 and isinstance(args[0], type) and args[0].__module__ == module
    else:
        allowed = module in LOSS_MODULES and bool(CLASS_NAME.fullmatch(name)) and are_numbers(args)
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
        allowed = are_numbers(args)
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
    allowed = isinstance(instance, STATEFUL) or is_library_class(kind)
    if isinstance(instance, np.ndarray):
        # numpy frees the old buffer, so an array that has elements, and may be shared, is never given new ones.
        allowed = instance.size == 0 and is_array_state(state)
    elif isinstance(instance, functools.partial):
        allowed = is_partial_state(instance.func, state)
    elif kind.__module__ in STATES:
        allowed = allowed and STATES[kind.__module__](state)
    # An instance attribute of such a name would stand in for a method that Python itself calls.
    for attributes in state if type(state) is tuple and len(state) == 2 else (state,):
        if type(attributes) is dict:
            allowed = allowed and all(type(key) is str and not key.startswith("__") for key in attributes)
    if not allowed:
        raise UnsafePickleError(f"an instance of {kind.__module__}.{kind.__qualname__} may not be given this state")


def _is_named(module: str, name: str, allowed_modules: Sequence[str]) -> bool:
    if not is_identifier(module, name):
        return False
    if _is_trusted(module, allowed_modules):
        return not name.startswith("__") or name.startswith(PYX_UNPICKLE)
    return (module, name) in CALLED or is_value(module, name)


def _is_trusted(module: str, allowed_modules: Sequence[str]) -> bool:
    return any(module == allowed or module.startswith(f"{allowed}.") for allowed in allowed_modules if allowed)
