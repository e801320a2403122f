"""The fence: whoever may still write an image, and is not on this node, is shut out of the cluster before we take it.

    1 look       who has the image open or holds its lock. A lock stays when its holder dies or is cut off
    2 blocklist  each of these clients, by the address of its one connection: commit point for that client
    3 wait       until we know the OSD map that says so: what we send from now on comes after it
    4 break      the lock of a client that is shut out

A call of 2 that fails fails the take-over: nothing is taken from a writer that may live. Died after 2: the other is
shut out, as it should be; the next take-over finds it again and goes on. A client that is shut out gets ESHUTDOWN for
everything, for ever for all we care: its node starts anew with another address.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

from snf_extstorage.rados.images import Client, Images
from snf_extstorage.volume import Trace
from synnefo_light import ceph
from synnefo_light.log import logger

#: A writer that was cut off for so long does not come back with what it held back.
EXPIRES_S: Final = 30 * 24 * 3600
LIMIT_S: Final = 60.0


def lives_here(images: Images) -> Callable[[Client], bool]:
    """Tells clients on this node by the address that the cluster sees of us: Ceph hosts are told apart by it."""
    own = Client(address=images.own_address()).host
    return lambda client: client.host == own


def fence(images: Images, name: str, *, spare: Callable[[Client], bool], trace: Trace) -> tuple[Client, ...]:
    """Shut out all clients of the image that are not to be spared; these are returned. Raises CephFault."""
    others = tuple(client for client in images.clients(name) if not spare(client))
    cluster = images.cluster.connect()
    for client in others:
        trace("fence blocklist")
        _blocklist(images, cluster, client)
        logger.warning("volume=%s fence client=%s blocklisted", name, client.address)
    if others:
        trace("fence wait")
        images.ask("wait for the new OSD map", lambda: _wait(images, cluster), limit_s=LIMIT_S)
        trace("fence break")
        with images.opened(name, read_only=False) as image:
            images.ask(f"break the lock of {name}", lambda: _break(image, others), limit_s=LIMIT_S)
    return others


def _blocklist(images: Images, cluster: Any, client: Client) -> None:
    rados = ceph.load("rados")
    asked = f"put {client.address} on the blocklist, without which its volume cannot be taken"
    try:
        ceph.bounded(lambda: cluster.blocklist_add(client.address, EXPIRES_S), asked, timeout_s=LIMIT_S)
    except rados.Error as e:
        raise ceph.explain(e, asked, images.cluster.access) from e


def _wait(images: Images, cluster: Any) -> None:
    rados = ceph.load("rados")
    try:
        cluster.wait_for_latest_osdmap()
    except rados.Error as e:
        raise ceph.explain(e, "send the new OSD map", images.cluster.access) from e


def _break(image: Any, others: tuple[Client, ...]) -> None:
    rbd = ceph.load("rbd")
    shut_out = {client.address for client in others}
    # EINVAL and ENOENT: nobody holds it.
    with contextlib.suppress(rbd.InvalidArgument, rbd.ImageNotFound):
        for owner in list(image.lock_get_owners()):
            if owner["owner"] in shut_out:
                image.lock_break(rbd.RBD_LOCK_MODE_EXCLUSIVE, owner["owner"])
