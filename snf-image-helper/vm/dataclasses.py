"""What we use of the standard dataclasses, without generating code. It stands in the VM's image in its place.

In the VM each class is used a few times, on a processor that may be emulated. The standard module writes and compiles
five functions for each class and imports `inspect` and all that needs; here the methods of all classes are the same
closures over their fields. What is not here is refused, so a class that needs more fails in the first test.
tests/unit/snf_image_helper/test_dataclasses.py holds it against the standard module.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

FIELDS = "__dataclass_fields__"


class _Missing:
    pass


MISSING = _Missing()


class FrozenInstanceError(AttributeError):
    pass


class Field:
    __slots__ = ("compare", "default", "default_factory", "init", "metadata", "name", "repr", "type")

    def __init__(self, default: Any, default_factory: Any, shown: bool) -> None:
        self.name = ""
        self.type: Any = None
        self.default, self.default_factory = default, default_factory
        self.repr = shown
        self.init = self.compare = True
        self.metadata: Mapping[str, Any] = MappingProxyType({})


def field(*, default: Any = MISSING, default_factory: Any = MISSING, repr: bool = True) -> Any:
    return Field(default, default_factory, repr)


def is_dataclass(record: object) -> bool:
    return hasattr(record if isinstance(record, type) else type(record), FIELDS)


def fields(record: Any) -> tuple[Field, ...]:
    if not is_dataclass(record):
        raise TypeError("must be called with a dataclass type or instance")
    return tuple(getattr(record, FIELDS).values())


def replace(record: Any, /, **changes: Any) -> Any:
    return type(record)(**({name: getattr(record, name) for name in getattr(record, FIELDS)} | changes))


def dataclass(*, frozen: bool, slots: bool = False, kw_only: bool) -> Callable[[type], type]:
    """Only frozen and keyword-only classes, as the house has them."""
    if not (frozen and kw_only):
        raise TypeError("the helper VM has frozen, keyword-only dataclasses only")
    return lambda cls: _made(cls, slots)


def _made(cls: type, slots: bool) -> type:
    known: dict[str, Field] = {}
    for base in reversed(cls.__mro__[1:]):
        known |= getattr(base, FIELDS, {})
    own = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 - inspect is what this module does without
    for name, kind in own.items():
        default = cls.__dict__.get(name, MISSING)
        made = default if isinstance(default, Field) else Field(default, MISSING, True)
        made.name, made.type = name, kind
        known[name] = made
    body = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__", *(own if slots else ()))}
    for name in own:
        if not slots and known[name].default is not MISSING:
            body[name] = known[name].default
        elif not slots:
            body.pop(name, None)
    if slots:
        inherited = {s for base in cls.__mro__[1:] for s in getattr(base, "__slots__", ())}
        body["__slots__"] = tuple(name for name in known if name not in inherited)
    methods = _methods(known, "__post_init__" in {k for base in cls.__mro__ for k in base.__dict__})
    if "__setattr__" in body or "__delattr__" in body:
        raise TypeError(f"{cls.__name__} defines how it is changed, but it is frozen")
    if body.get("__hash__", 0) is None and "__eq__" in body:
        del body["__hash__"]  # it was not the class that said so: Python does, of a class with an __eq__ alone
    body = methods | body  # what the class defines itself counts, as in the standard module
    body[FIELDS] = known
    body.setdefault("__doc__", None)
    return type(cls)(cls.__name__, cls.__bases__, body)


def _methods(known: dict[str, Field], checks: bool) -> dict[str, Any]:
    names = tuple(known)
    shown = tuple(name for name in names if known[name].repr)
    put = object.__setattr__

    def init(self: Any, **given: Any) -> None:
        for name in names:
            if name in given:
                value = given.pop(name)
            elif known[name].default is not MISSING:
                value = known[name].default
            elif known[name].default_factory is not MISSING:
                value = known[name].default_factory()
            else:
                raise TypeError(f"{type(self).__name__}.__init__() is missing {name!r}")
            put(self, name, value)
        if given:
            raise TypeError(f"{type(self).__name__}.__init__() got an unexpected {min(given)!r}")
        if checks:
            self.__post_init__()

    def values(self: Any) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in names)

    def same(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def digest(self: Any) -> int:
        return hash(values(self))

    def text(self: Any) -> str:
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({inner})"

    def refuse(self: Any, name: str, *_: object) -> None:
        raise FrozenInstanceError(f"cannot change field {name!r}")

    return {
        FIELDS: known,
        "__init__": init,
        "__eq__": same,
        "__hash__": digest,
        "__repr__": text,
        "__setattr__": refuse,
        "__delattr__": refuse,
        "__match_args__": (),
    }
