"""Who uses a volume and how: attach, and the one writer; `fence.py` says how another is shut out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from snf_extstorage.rados import fence, mapping
from snf_extstorage.rados.images import Client
from snf_extstorage.rados.kept import Kept
from snf_extstorage.rados.record import VolumeRecord
from snf_extstorage.rados.uri import render_uri
from snf_extstorage.refusals import formerly_after_open
from snf_extstorage.volume import Attachment, InUse, NotFound
from snf_extstorage.writers import Writers, plan_close, plan_open
from synnefo_light.ganeti import VolumeName
from synnefo_light.log import logger


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How this node uses what is in a pool. `spare`: which clients are not to be fenced; else those of this host."""

    node: str
    krbd: bool = False
    user_in_uri: bool = True
    fencing: bool = True
    spare: Callable[[Client], bool] | None = None


class VolumeAccess:
    """See `Volumes` for the methods of the same names."""

    def __init__(self, kept: Kept, use: Use) -> None:
        self._kept = kept
        self._images = kept.images
        self._use = use

    def attach(self, name: VolumeName) -> Attachment:
        self._kept.volume(name)
        if self._use.krbd:
            return Attachment(device=mapping.map_image(self._images, name))
        return Attachment(device=None, uris=(f"kvm:{self._uri(name)}",))

    def detach(self, name: VolumeName) -> None:
        """Who still writes here and is not written down would not be fenced by the next node."""
        self.unmap(name)
        what = f"volume {name} is to be detached, but {{}} on this node has it open; stop who uses it"
        self._kept.wait_for_clients(name, what, counts=self._spared())
        self.close(name)

    def unmap(self, name: VolumeName) -> None:
        if self._use.krbd:
            mapping.unmap(self._images, name)

    def open(self, name: VolumeName, *, exclusive: bool) -> None:
        """Fence, where one is needed, then the record: the commit point. Died in between, the next one fences again."""
        record = self._kept.volume(name)
        # Who uses it here is spared by the fence, so it does not matter to the plan.
        now = Writers(record.holders, record.exclusive)
        plan = plan_open(now, self._use.node, exclusive=exclusive, used_here=False, volume=name)
        if plan.fence and not self._use.fencing:
            logger.warning("volume=%s open: taken from %s without a fence", name, ", ".join(record.holders))
        elif plan.fence:
            others = ", ".join(holder for holder in record.holders if holder != self._use.node)
            logger.warning("volume=%s open: fencing %s, which did not close it", name, others)
            fence.fence(self._images, name, spare=self._spared(), trace=self._kept.trace)
        self._kept.trace("open record")

        def take(found: VolumeRecord) -> VolumeRecord:
            if found.holders != record.holders or found.exclusive != record.exclusive:
                raise InUse(f"volume {name} was opened or closed by another node at the same time; try again")
            return replace(
                found,
                holders=plan.writers.nodes,
                exclusive=plan.writers.exclusive,
                opened=True,
                formerly=formerly_after_open(found),
                generation=found.generation + plan.fence,
            )

        self._kept.change_volume(name, take)

    def close(self, name: VolumeName) -> None:
        def leave(found: VolumeRecord) -> VolumeRecord:
            writers = plan_close(Writers(found.holders, found.exclusive), self._use.node)
            return replace(found, holders=writers.nodes, exclusive=writers.exclusive)

        with contextlib.suppress(NotFound):
            self._kept.change_volume(name, leave)

    def require_usable(self, name: str) -> None:
        """Raises UserError for a place that instances could not use, before anything is made there."""
        if not self._use.krbd:
            self._uri(name)

    def _uri(self, name: str) -> str:
        images = self._images
        return render_uri(
            pool=images.pool,
            namespace=images.namespace,
            image=name,
            user=images.cluster.access.user,
            with_user=self._use.user_in_uri,
        )

    def _spared(self) -> Callable[[Client], bool]:
        return self._use.spare or fence.lives_here(self._images)
