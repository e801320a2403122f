"""The VM's own dataclasses against the standard module: the same class made by both does the same."""

from __future__ import annotations

import dataclasses as standard
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TREE = Path(__file__).resolve().parents[3]


def load() -> ModuleType:
    """By another name, so that the standard one stays what everybody here imports."""
    spec = importlib.util.spec_from_file_location("vm_dataclasses", TREE / "snf-image-helper" / "vm" / "dataclasses.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = {"standard": standard, "vm": load()}


def classes(module: Any) -> tuple[Any, Any, Any]:
    @module.dataclass(frozen=True, slots=True, kw_only=True)
    class Base:
        number: int
        text: str = "x"

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("negative")

    @module.dataclass(frozen=True, slots=True, kw_only=True)
    class Derived(Base):
        hidden: bytes = module.field(default=b"h", repr=False)
        made: tuple[int, ...] = module.field(default_factory=tuple)

        @property
        def twice(self) -> int:
            return 2 * self.number

    @module.dataclass(frozen=True, kw_only=True)
    class Plain:
        number: int = 1

    return Base, Derived, Plain


def own_methods(module: Any) -> Any:
    """A class that defines itself what the module would make."""

    @module.dataclass(frozen=True, slots=True, kw_only=True)
    class Own:
        number: int
        text: str = "x"

        def __repr__(self) -> str:
            return f"own {self.number}"

        def __eq__(self, other: object) -> bool:
            return getattr(other, "number", None) == self.number

        def __hash__(self) -> int:
            return 7

    return Own


def own_equality(module: Any, *, hashed: bool) -> Any:
    """With __eq__ alone Python itself puts `__hash__ = None`, which the standard module replaces."""

    class Plain:  # noqa: PLW1641 - what is tested
        number: int
        text: str = "x"

        def __eq__(self, other: object) -> bool:
            return getattr(other, "number", None) == self.number

    if hashed:
        Plain.__hash__ = lambda self: 5  # type: ignore[method-assign]
    return module.dataclass(frozen=True, kw_only=True)(Plain)


def changeable(module: Any) -> Any:
    @module.dataclass(frozen=True, kw_only=True)
    class Changeable:
        number: int

        def __setattr__(self, name: str, value: object) -> None:
            pass

    return Changeable


def started(module: Any) -> Any:
    @module.dataclass(frozen=True, kw_only=True)
    class Started:
        number: int = 3

        def __init__(self) -> None:
            pass

    return Started


OWN: list[Callable[[Any], Any]] = [
    lambda m: own_methods(m)(number=1),
    lambda m: hash(own_methods(m)(number=1)),
    lambda m: (c := own_methods(m))(number=1) == c(number=1, text="y"),
    lambda m: (c := own_methods(m))(number=1) == c(number=2),
    lambda m: (c := own_equality(m, hashed=False))(number=1) == c(number=1, text="y"),
    lambda m: hash((c := own_equality(m, hashed=False))(number=1)) == hash(c(number=1)),
    lambda m: hash(own_equality(m, hashed=True)(number=1)),
    changeable,
    lambda m: started(m)().number,
    lambda m: started(m)(number=4),
]


@pytest.mark.parametrize("number", range(len(OWN)))
def test_what_a_class_defines_itself_is_kept_or_refused_by_both(number: int) -> None:
    seen = {name: outcome(lambda m=module: OWN[number](m)) for name, module in MODULES.items()}  # type: ignore[misc]
    assert seen["vm"] == seen["standard"]


def outcome(act: Callable[[], Any]) -> str:
    """What it gives, or the kind of error; without the names of the classes' places."""
    try:
        return repr(act()).replace("classes.<locals>.", "")
    except Exception as e:
        return type(e).__name__


ACTS: list[Callable[[Any, Any, Any, Any], Any]] = [
    lambda m, b, d, p: b(number=1),
    lambda m, b, d, p: b(number=-1),
    lambda m, b, d, p: b(),
    lambda m, b, d, p: b(1),
    lambda m, b, d, p: b(number=1, other=2),
    lambda m, b, d, p: d(number=2, hidden=b"secret").twice,
    lambda m, b, d, p: d(number=2, hidden=b"secret"),
    lambda m, b, d, p: d(number=-2),
    lambda m, b, d, p: p(),
    lambda m, b, d, p: p.number,
    lambda m, b, d, p: b(number=1) == b(number=1),
    lambda m, b, d, p: b(number=1) == b(number=2),
    lambda m, b, d, p: b(number=1) == d(number=1),
    lambda m, b, d, p: len({b(number=1), b(number=1), b(number=2)}),
    lambda m, b, d, p: setattr(b(number=1), "number", 2),
    lambda m, b, d, p: delattr(b(number=1), "number"),
    lambda m, b, d, p: setattr(p(), "new", 2),
    lambda m, b, d, p: b(number=1).__dict__,
    lambda m, b, d, p: m.replace(d(number=1), number=5, text="y"),
    lambda m, b, d, p: m.replace(b(number=1), number=-5),
    lambda m, b, d, p: [(f.name, f.type, f.init) for f in m.fields(d)],
    lambda m, b, d, p: [f.default is m.MISSING for f in m.fields(d)],
    lambda m, b, d, p: [f.default_factory is m.MISSING for f in m.fields(d(number=1))],
    lambda m, b, d, p: m.fields(3),
    lambda m, b, d, p: [m.is_dataclass(x) for x in (b, b(number=1), 3, int)],
    lambda m, b, d, p: (b.__name__, d.__mro__[1].__name__, b.__match_args__, d.__slots__, b.__slots__),
]


@pytest.mark.parametrize("number", range(len(ACTS)))
def test_both_do_the_same(number: int) -> None:
    seen = {name: outcome(lambda m=module: ACTS[number](m, *classes(m))) for name, module in MODULES.items()}  # type: ignore[misc]
    assert seen["vm"] == seen["standard"]


def test_what_it_has_not_is_refused() -> None:
    vm: Any = MODULES["vm"]
    for options in ({"frozen": False, "kw_only": True}, {"frozen": True, "kw_only": False}):
        with pytest.raises(TypeError, match="frozen, keyword-only"):
            vm.dataclass(**options)
    with pytest.raises(TypeError):
        vm.dataclass(frozen=True, kw_only=True, order=True)


def test_the_contract_reads_and_writes_the_same_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """records.py and manifest.py, imported anew on top of it, make the same bytes."""
    from synnefo_light import manifest

    given = manifest.Manifest(
        helper_version="1", nonce="0" * 32, instance="a", hostname="a", disks=(manifest.Disk(index=0, size=1),)
    )
    raw = manifest.encode(given)
    for name in [n for n in sys.modules if n.startswith("synnefo_light")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dataclasses", MODULES["vm"])
    again = importlib.import_module("synnefo_light.manifest")
    assert again.Manifest is not manifest.Manifest
    assert again.encode(again.decode(raw)) == raw
