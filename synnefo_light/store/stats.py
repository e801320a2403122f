"""How much there is, and how much sharing saves."""

from __future__ import annotations

from dataclasses import dataclass

from synnefo_light.store import names, reach
from synnefo_light.store.backend import Kind
from synnefo_light.store.errors import Absent
from synnefo_light.store.identity import MapId
from synnefo_light.store.reach import Reached
from synnefo_light.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Bytes, but for counts.

    `logical`: the sizes of all names together, as their owners see them. `mapped`: the blocks that they name, each time
    they are named, holes left out. `stored`: what these blocks occupy, each once. `garbage`: blocks that nothing needs.
    """

    names: int
    maps: int
    blocks: int
    logical: int
    mapped: int
    stored: int
    garbage: int

    @property
    def shared(self) -> int:
        """What would be stored besides if every name had its blocks for itself."""
        return self.mapped - self.stored

    @property
    def ratio(self) -> float:
        """`mapped` to `stored`; 1 for a store without a block."""
        return self.mapped / self.stored if self.stored else 1.0


def measure(store: Store) -> Figures:
    """Reads every name, root and page, and asks for the size of every block. Raises StoreFault for what is damaged."""
    reached = Reached()
    count = logical = 0
    uses: dict[str, int] = {}
    for named in names.readable(store):
        count += 1
        logical += named.entry.size
        if named.entry.map is not None:
            reached.follow(store, named.entry.map)
            uses[named.entry.map] = uses.get(named.entry.map, 0) + 1
    sizes: dict[bytes, int] = {}
    garbage = 0
    needed = set().union(*(reached.blocks.part(number) for number in range(256)))
    reached.blocks.close()
    for key in store.backend.keys(Kind.BLOCK):
        try:
            size = store.backend.stat(Kind.BLOCK, key).size
        except Absent:
            continue
        if bytes.fromhex(key) in needed:
            sizes[bytes.fromhex(key)] = size
        else:
            garbage += size
    mapped = sum(times * _mapped(store, map_id, sizes) for map_id, times in uses.items())
    return Figures(
        names=count,
        maps=len(uses),
        blocks=len(sizes),
        logical=logical,
        mapped=mapped,
        stored=sum(sizes.values()),
        garbage=garbage,
    )


def _mapped(store: Store, map_id: str, sizes: dict[bytes, int]) -> int:
    total = 0
    for entry in reach.read_root(store, MapId(map_id)).pages:
        if any(entry.page):
            entries = reach.read_entries(store, entry.page)
            total += sum(sizes.get(bytes(entries[n : n + 32]), 0) for n in range(0, len(entries), 32))
    return total
