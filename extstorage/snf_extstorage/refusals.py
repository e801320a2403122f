"""What every engine refuses of a volume, in the same words."""

from __future__ import annotations

from typing import Final, NoReturn, Protocol

from snf_extstorage.volume import Exists, SizeRefused
from synnefo_light.errors import UserError
from synnefo_light.units import human

#: How the names of RBD images begin that an engine keeps for itself: bases, and what clones still need.
RESERVED: Final = ("base.", "gone.")


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

    @property
    def formerly(self) -> str: ...


def refuse_other(name: str, found: Made, wanted: Made) -> None:
    """Raises Exists unless `found`, which has the name, is what is wanted, and nobody may have written to it."""
    same = (found.uuid, found.size, found.origin) == (wanted.uuid, wanted.size, wanted.origin)
    if same and not found.opened and not found.formerly:
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


def refuse_adopting(source: str, name: str, *, record: Made | None, uuid: str | None) -> None:
    """Raises UserError for what may not become disk `uuid`: an image of the engine's own, or another disk of Ganeti's.

    A stopped instance's volume looks as unused as any. What an adoption that died was about is free: see `is_lent`.
    """
    if source.startswith(RESERVED):
        raise UserError(
            f"{source} is to become volume {name}, but names that begin with {' or '.join(RESERVED)} are the engine's "
            "own; name a volume"
        )
    if record is not None and record.uuid not in (None, uuid) and record.formerly != source:
        raise UserError(
            f"volume {source} is to become {name}, but Ganeti made it for its disk {record.uuid}; adopt one that is no "
            "disk's, or clone a snapshot of it"
        )


def is_lent(name: str, record: Made) -> bool:
    """Whether `remove` gives a volume back under the name that it had before it was adopted, instead of freeing it.

    Ganeti opens a disk once when it is made and again to use it, and removes those that it made when another fails.
    """
    return bool(record.formerly) and (record.formerly != name or record.uuid is not None)


def formerly_after_open(record: Made) -> str:
    """The old name is forgotten at the second open."""
    return "" if record.opened else record.formerly


def refuse_returning(name: str, source: str) -> NoReturn:
    """Raises Exists: `source`, the name that `name` had before it was adopted, is another's."""
    raise Exists(
        f"volume {name} was adopted and not used, and is to be {source} again, but there is another of that name; "
        "remove or rename that one first"
    )
