"""How QEMU is told where an image is: pure.

    rbd:POOL/IMAGE                as client.admin, or whoever CEPH_ARGS names
    rbd:POOL/IMAGE:id=USER

Ganeti 3.0 hands QEMU whatever it is given. Ganeti 3.1 takes it apart with a pattern (its hv_kvm/kvm_utils.py) and
refuses what does not match: pools are of letters, digits and underscores, there are no namespaces, images are of
lower case letters, digits, hyphens and dots; and up to 3.1.0~rc2 there is no `:id=`.
"""

from __future__ import annotations

import re
from typing import Final

from synnefo_light.errors import UserError

_POOL: Final = re.compile(r"[A-Za-z0-9_]+")
_IMAGE: Final = re.compile(r"[a-z0-9.-]+")


def render_uri(*, pool: str, namespace: str, image: str, user: str | None) -> str:
    """`user` None: it is left out. Raises UserError when Ganeti 3.1 could not read it."""
    if namespace:
        raise UserError(
            f"image {image} is in the namespace {namespace} of pool {pool}, which Ganeti 3.1 cannot pass to QEMU; "
            "use a pool without namespaces, or the kernel's driver (krbd = true)"
        )
    if not _POOL.fullmatch(pool):
        raise UserError(
            f"the pool {pool} has a character that Ganeti 3.1 cannot pass to QEMU; "
            "use one of letters, digits and underscores, or the kernel's driver (krbd = true)"
        )
    if not _IMAGE.fullmatch(image):
        raise UserError(
            f"the image {image} has a character that Ganeti 3.1 cannot pass to QEMU; "
            "its name may have lower case letters, digits, hyphens and dots"
        )
    return f"rbd:{pool}/{image}" + (f":id={user}" if user and user != "admin" else "")
