"""How QEMU is told where an image is: pure.

    rbd:POOL/IMAGE                as client.admin
    rbd:POOL/IMAGE:id=USER

Ganeti 3.0 hands QEMU whatever it is given. Ganeti 3.1 takes it apart with a pattern (its hv_kvm/kvm_utils.py) and
refuses what does not match: pools are of letters, digits and underscores, there are no namespaces, images are of
lower case letters, digits, hyphens and dots; and up to 3.1.0~rc2 there is no `:id=`. QEMU takes the user from nowhere
else: of CEPH_ARGS librados reads options as --keyring, but not --id or --name. So such a Ganeti needs client.admin.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from synnefo_light.errors import UserError
from synnefo_light.ganeti import installed_version

_POOL: Final = re.compile(r"[A-Za-z0-9_]+")
_IMAGE: Final = re.compile(r"[a-z0-9.-]+")


def reads_user(setting: Literal["auto", "always", "never"]) -> bool:
    """Whether this node's Ganeti reads an address with a user: as the setting says, or as its version does."""
    if setting != "auto":
        return setting == "always"
    version = installed_version()
    return version is None or version < (3, 1)


def render_uri(*, pool: str, namespace: str, image: str, user: str, with_user: bool = True) -> str:
    """`with_user`: whether Ganeti reads an address with a user. Raises UserError when Ganeti could not read it."""
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
    if user == "admin":
        return f"rbd:{pool}/{image}"
    if not with_user:
        raise UserError(
            f"image {image} is to be used as client.{user}, which Ganeti 3.1 cannot tell QEMU; "
            'use user = "admin", or krbd = true; user_in_uri = "always" says that this Ganeti can'
        )
    return f"rbd:{pool}/{image}:id={user}"
