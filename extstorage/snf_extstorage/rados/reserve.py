"""What of a Ceph is left to running instances: below it nothing of ours is begun, and nothing goes on writing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from snf_extstorage.volume import NoSpace, Space
from synnefo_light.units import human

#: Blocks of 4 MiB that are written before the free space is looked at again.
EACH: Final = 16


class Reserve:
    def __init__(self, space: Callable[[], Space], *, percent: int, place: str) -> None:
        self._space = space
        self._percent = percent
        self._place = place

    def require(self) -> None:
        """Raises NoSpace. A cluster without a manager daemon counts nothing, so nothing is refused there."""
        space = self._space()
        if space.free * 100 < space.total * self._percent:
            raise NoSpace(
                f"the Ceph of pool {self._place} has {human(space.free)} of {human(space.total)} free, and "
                f"{self._percent} % are reserved for running instances; add OSDs, or remove what is not needed"
            )

    def minding(self) -> Callable[[], None]:
        """`require` at each call after so many: others may write as much as we at the same time."""
        calls = itertools.count(1)

        def mind() -> None:
            if next(calls) % EACH == 0:
                self.require()

        return mind
