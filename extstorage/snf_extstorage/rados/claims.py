"""Which node puts a snapshot into the store, so that no two do the same work: the object `snf.claims`.

    claim ──► renewed every `BEAT_S` ──► no record

Each arrow is one swap. Whoever dies renews his no more: `LEASE_S` later another node takes it, by that node's clock;
at once, where the claim is so far ahead of that clock. It only spares work. Two that commit the same snapshot end with
the same map, so a claim that is lost, taken too early by a clock that is wrong, or that cannot be read or written,
stops nobody.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from snf_extstorage.rados.record import ClaimRecord, DamagedRecord, Table
from snf_extstorage.volume import InUse, SnapshotName
from synnefo_light.ceph import CephFault
from synnefo_light.errors import Error
from synnefo_light.log import logger
from synnefo_light.store.errors import StoreFault

#: How long a claim that is not renewed stands; clocks of nodes differ by far less.
LEASE_S: Final = 120
BEAT_S: Final = 20.0
POLL_S: Final = 2.0


def may_take(found: ClaimRecord, mine: ClaimRecord, *, lease_s: float) -> bool:
    """Whether who wrote `found` is dead to whoever would write `mine` now."""
    return abs(mine.beat_s - found.beat_s) > lease_s


@contextlib.contextmanager
def claimed(
    table: Table[ClaimRecord],
    name: SnapshotName,
    *,
    node: str,
    wait_s: float,
    lease_s: float = LEASE_S,
    beat_s: float = BEAT_S,
) -> Iterator[None]:
    """See `Volumes.claim`."""
    try:
        claim = _Claim(table, name, _wait(table, name, node, wait_s, lease_s))
    except (DamagedRecord, StoreFault, CephFault) as e:
        logger.warning("snapshot=%s it is committed without a claim, and perhaps by others too: %s", name, e)
        yield
        return
    over = threading.Event()
    renewal = threading.Thread(target=claim.renew, args=(over, beat_s), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        over.set()
        renewal.join()
        claim.leave()


def drop_old(table: Table[ClaimRecord], *, older_than_s: float) -> None:
    """Forget claims of who died, on snapshots that nobody claims again; also those of a clock so far ahead."""
    now = time.time()
    for name, record in list(table.items()):
        if abs(now - record.beat_s) > older_than_s:
            table.swap(name, record, None)


def _wait(table: Table[ClaimRecord], name: SnapshotName, node: str, wait_s: float, lease_s: float) -> ClaimRecord:
    """Our claim, once it is written down. Raises InUse after so long."""
    deadline = time.monotonic() + wait_s
    while True:
        found = table.get(name)
        mine = ClaimRecord(node=node, pid=os.getpid(), attempt=secrets.token_hex(8), beat_s=int(time.time()))
        if found is None or may_take(found, mine, lease_s=lease_s):
            if table.swap(name, found, mine):
                if found is not None:
                    logger.warning("snapshot=%s commit: taken from %s, which began it and died", name, found.node)
                return mine
        elif time.monotonic() >= deadline:
            holder = f"process {found.pid} on {found.node}"
            raise InUse(f"snapshot {name} is to be committed, but {holder} is at it already; wait for it")
        else:
            time.sleep(POLL_S)


class _Claim:
    """Ours, until it is lost."""

    def __init__(self, table: Table[ClaimRecord], name: str, record: ClaimRecord) -> None:
        self._table = table
        self._name = name
        self._record: ClaimRecord | None = record

    def renew(self, over: threading.Event, beat_s: float) -> None:
        while self._record is not None and not over.wait(beat_s):
            self._swap(replace(self._record, beat_s=int(time.time())))

    def leave(self) -> None:
        if self._record is not None:
            self._swap(None)

    def _swap(self, new: ClaimRecord | None) -> None:
        """What goes wrong here is no reason to stop the work."""
        try:
            held = self._table.swap(self._name, self._record, new)
        except Error as e:
            logger.warning("snapshot=%s the claim on its commit is not written down: %s", self._name, e)
            held = False
        self._record = new if held else None
