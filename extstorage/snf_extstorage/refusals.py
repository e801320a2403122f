"""What every engine refuses of a volume, in the same words."""

from __future__ import annotations

from typing import Protocol

from snf_extstorage.volume import Exists, SizeRefused
from synnefo_light.units import human


class Made(Protocol):
    """What a record says of how its volume was made."""

    @property
    def uuid(self) -> str | None: ...

    @property
    def size(self) -> int: ...

    @property
    def origin(self) -> str: ...

    @property
    def opened(self) -> bool: ...


def refuse_other(name: str, found: Made, wanted: Made) -> None:
    """Raises Exists unless `found`, which has the name, is what is wanted, and nobody may have written to it."""
    same = (found.uuid, found.size, found.origin) == (wanted.uuid, wanted.size, wanted.origin)
    if same and not found.opened:
        return
    why = "has been in use" if same else f"is another one ({human(found.size)}, from {found.origin})"
    raise Exists(f"volume {name} is to be made, but there is one of that name, which {why}")


def refuse_smaller(name: str, size: int, *, origin: str, has: int) -> None:
    """Raises SizeRefused for a clone of `size` bytes whose origin has more."""
    if has > size:
        raise SizeRefused(
            f"volume {name} is to have {human(size)}, but its origin, {origin}, has {human(has)}; ask for that much"
        )


def refuse_shrinking(name: str, has: int, new: int) -> None:
    """Raises SizeRefused."""
    if new < has:
        raise SizeRefused(f"volume {name} has {human(has)} and was asked to become {human(new)}; it can only grow")


def refuse_resizing(source: str, name: str, *, has: int, size: int) -> None:
    """Raises SizeRefused when what is adopted has another size than is asked for."""
    if has != size:
        raise SizeRefused(f"{source} has {human(has)}, and {name} is to have {human(size)}; ask for its size")
