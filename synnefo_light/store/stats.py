"""How much there is, and how much sharing saves."""

from __future__ import annotations

from dataclasses import dataclass

from synnefo_light.store import names, pins, reach
from synnefo_light.store.backend import Kind
from synnefo_light.store.errors import Absent
from synnefo_light.store.identity import MapId
from synnefo_light.store.reach import Reached
from synnefo_light.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Bytes, but for counts.

    `logical`: the sizes of all names together, as their owners see them. `mapped`: the blocks that they name, each time
    they are named, holes left out. `stored`: what these blocks occupy, each once. `pinned`: blocks that a pin
    needs and no name. `garbage`: blocks that nothing needs. `work`: operations that run, or were killed and whose pins
    have not expired; what was stored since they began stays as well.
    """

    names: int
    maps: int
    blocks: int
    logical: int
    mapped: int
    stored: int
    pinned: int
    garbage: int
    work: int

    @property
    def shared(self) -> int:
        """What would be stored besides if every name had its blocks for itself."""
        return self.mapped - self.stored

    @property
    def ratio(self) -> float:
        """`mapped` to `stored`; 1 for a store without a block."""
        return self.mapped / self.stored if self.stored else 1.0


def measure(store: Store) -> Figures:
    """Reads every name, pin, root and page, and asks for the size of every block.

    Raises StoreFault for what is damaged, but for names.
    """
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
    pinned = garbage = 0
    needed = _blocks(reached)
    held = list(pins.living(store, store.backend.now()))
    for map_id in sorted({map_id for one in held for map_id in one.pin.maps}):
        reached.follow(store, MapId(map_id))
    kept = _blocks(reached)
    reached.blocks.close()
    for key in store.backend.keys(Kind.BLOCK):
        try:
            size = store.backend.stat(Kind.BLOCK, key).size
        except Absent:
            continue
        if bytes.fromhex(key) in needed:
            sizes[bytes.fromhex(key)] = size
        elif bytes.fromhex(key) in kept:
            pinned += size
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
        pinned=pinned,
        garbage=garbage,
        work=sum(map(pins.is_at_work, held)),
    )


def _blocks(reached: Reached) -> set[bytes]:
    return set().union(*(reached.blocks.part(number) for number in range(256)))


def _mapped(store: Store, map_id: str, sizes: dict[bytes, int]) -> int:
    total = 0
    for entry in reach.read_root(store, MapId(map_id)).pages:
        if any(entry.page):
            entries = reach.read_entries(store, entry.page)
            total += sum(sizes.get(bytes(entries[n : n + 32]), 0) for n in range(0, len(entries), 32))
    return total
