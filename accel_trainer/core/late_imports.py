"""What torch imports for a training that does not use it, imported when it is used.

torchvision and every optimizer import `torch.compile`, only to ask whether it is at work or to keep it away from a
function; shapes without data (`device="meta"`) import what computes with symbols, and sympy, for the same reason. That
takes as long as half of torch. `import_late` puts a stand-in for each where Python looks for it. A stand-in answers
what it is asked in a process that compiles nothing. At anything else the module itself is imported, and takes the
stand-in's place: whoever compiles, or computes with symbols, has all of it.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

COMPILER, COMPILER_UTILS = "torch._dynamo", "torch._dynamo.utils"
SYMBOLS, SYMPY = "torch.fx.experimental.symbolic_shapes", "sympy"
# What comes together: a package and what is in it.
_TOGETHER = ({COMPILER, COMPILER_UTILS}, {SYMBOLS}, {SYMPY})
_PACKAGES = (COMPILER, SYMPY)
# Who walks through all modules asks for these, and wants nothing of any.
_WALKED = ("__file__", "__path__", "__wrapped__", "__warningregistry__")


def import_late() -> None:
    """From now on this process imports those modules late, but for those that it has imported already. To be called
    before torch is imported."""
    wanted = {name for part in _TOGETHER if not part & sys.modules.keys() for name in part}
    if wanted and not any(isinstance(finder, _StandIns) for finder in sys.meta_path):
        sys.meta_path.insert(0, _StandIns(wanted))


def is_imported(name: str) -> bool:
    """Whether a module itself is imported, and not only its stand-in."""
    return name in sys.modules and not isinstance(sys.modules[name], _StandIn)


class _StandIn(ModuleType):
    """A module that is imported when it is asked for what it has not."""

    def __getattr__(self, name: str) -> Any:
        if name in _WALKED and not is_imported(self.__name__):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_itself(self.__name__), name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("__") or isinstance(value, _StandIn):  # by Python, which imports it
            super().__setattr__(name, value)
        else:
            setattr(_itself(self.__name__), name, value)


class _StandIns(MetaPathFinder, Loader):
    """Finds the stand-ins, before others find the modules themselves."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Called by Python before it looks for a module."""
        if name in self.names:
            return ModuleSpec(name, self, is_package=name in _PACKAGES)
        package = name.rpartition(".")[0]
        if package not in self.names:
            return None
        _itself(package)
        return ModuleSpec(name, _Imported()) if name in sys.modules else find_spec(name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in, empty."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """What it can answer."""
        vars(module).update(_ANSWERS[module.__name__])


class _Imported(Loader):
    """Gives a module that was imported while it was looked for."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = sys.modules[spec.name]
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _itself(name: str) -> ModuleType:
    """A module itself, in the place of its stand-in. Two threads may ask at once: Python has one of them wait."""
    if is_imported(name):  # whoever has imported it before asks its stand-in again and again
        return importlib.import_module(name)  # which waits for a thread that is at it
    together = next(names for names in _TOGETHER if name in names)
    for finder in sys.meta_path:
        if isinstance(finder, _StandIns):
            finder.names -= together
    for one in together:
        if isinstance(sys.modules.get(one), _StandIn):
            del sys.modules[one]
        package, _, last = one.rpartition(".")
        if isinstance(vars(sys.modules.get(package, sys)).get(last), _StandIn):
            delattr(sys.modules[package], last)
    return importlib.import_module(name)


# -- answers ------------------------------------------------------------------------------------------------------


def _disable(function: Any = None, *arguments: Any, **options: Any) -> Any:
    """A function as it is: nothing compiles it. From when on something could, it is kept away from that."""
    if not isinstance(function, FunctionType):
        return _itself(COMPILER).disable(function, *arguments, **options)
    kept_away: Callable[..., Any] | None = None

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal kept_away
        if kept_away is None:
            if not is_imported(COMPILER):
                return function(*args, **kwargs)
            kept_away = _itself(COMPILER).disable(function, *arguments, **options)
        return kept_away(*args, **kwargs)

    return run


class _StandInClass:
    """A class of which nothing is an instance before its module is imported. It is no class, so that whoever derives
    from it derives from the class itself."""

    def __init__(self, find: Callable[[], Any], is_there: Callable[[], bool]) -> None:
        self._find, self._is_there = find, is_there

    def __instancecheck__(self, instance: object) -> bool:
        return self._is_there() and isinstance(instance, self._find())

    def __subclasscheck__(self, subclass: type) -> bool:
        return self._is_there() and issubclass(subclass, self._find())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type]:
        return (self._find(),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._find()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)

    def __or__(self, other: Any) -> Any:
        return self._find() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._find()


class _EvalFrame(SimpleNamespace):
    OptimizedModule = _StandInClass(lambda: _itself(COMPILER).eval_frame.OptimizedModule, lambda: is_imported(COMPILER))

    def __getattr__(self, name: str) -> Any:
        return getattr(_itself(COMPILER).eval_frame, name)


def _is_compile_supported(device_type: Any) -> Any:
    return _itself(COMPILER_UTILS).is_compile_supported(device_type)


def _of_plain(name: str, kinds: Sequence[type], answer: Callable[..., Any]) -> Callable[..., Any]:
    """A function of what computes with symbols. answer: gives the same, where all arguments are of these kinds, which
    are none of symbols."""

    def known(*args: Any, **kwargs: Any) -> Any:
        if args and not kwargs and all(type(one) in kinds for one in args):
            return answer(*args)
        return getattr(_itself(SYMBOLS), name)(*args, **kwargs)

    return known


def _sym_eq(x: Any, y: Any) -> Any:
    """Whether two sizes, or shapes, are equal."""
    both = (x, y)
    if all(type(one) is int for one in both):
        return x == y
    if all(isinstance(one, tuple | list) and all(type(size) is int for size in one) for one in both):
        return list(x) == list(y)
    return _itself(SYMBOLS).sym_eq(x, y)


def _graph_break(msg: str = "") -> None:
    """Nothing is compiled, so nothing is split."""


_ITS_VALUE = ("guard_or_false", "guard_or_true", "statically_known_true")
_ANSWERS: Mapping[str, Mapping[str, Any]] = {
    COMPILER: {"disable": _disable, "graph_break": _graph_break, "eval_frame": _EvalFrame()},
    COMPILER_UTILS: {"is_compile_supported": _is_compile_supported},
    SYMBOLS: {
        "guard_size_oblivious": _of_plain("guard_size_oblivious", (), bool),  # it warns: it is only to be imported
        "expect_true": _of_plain("expect_true", (bool,), lambda condition, skip=0: condition),
        **{name: _of_plain(name, (bool,), lambda condition: condition) for name in _ITS_VALUE},
        "sym_and": _of_plain("sym_and", (bool,), lambda *conditions: all(conditions)),
        "sym_or": _of_plain("sym_or", (bool,), lambda *conditions: any(conditions)),
        "sym_eq": _sym_eq,
        "is_nested_int": _of_plain("is_nested_int", (int,), lambda size: False),
        "has_guarding_hint": _of_plain("has_guarding_hint", (int,), lambda size: True),
        "guarding_hint_or_throw": _of_plain("guarding_hint_or_throw", (int, bool), lambda size: size),
    },
    SYMPY: {"Basic": _StandInClass(lambda: _itself(SYMPY).Basic, lambda: is_imported(SYMPY))},
}
