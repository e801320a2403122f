"""Clear passwords become hashes here, in the VM, before any task is planned: tasks stay pure and see no clear text.

The hashing is libcrypt's own (crypt(3), libxcrypt), so every method is one that a Debian login understands.
"""

from __future__ import annotations

import os
from dataclasses import replace

from snf_image_helper.syscalls import crypt
from synnefo_light.errors import UserError
from synnefo_light.log import Secret
from synnefo_light.manifest import HashingMethod, Manifest, Password

PREFIXES: dict[HashingMethod, str] = {
    "yescrypt": "$y$",
    "sha512": "$6$",
    "sha256": "$5$",
    "blowfish": "$2b$",
    "md5": "$1$",
    "sha1": "$sha1",
}


def hash_passwords(manifest: Manifest) -> Manifest:
    """The manifest with every password hashed. Raises UserError when libcrypt does not take one."""
    return replace(manifest, passwords=tuple(_hashed(p, manifest.hashing) for p in manifest.passwords))


def _hashed(password: Password, method: HashingMethod) -> Password:
    if password.clear is None:
        return password
    try:
        text = crypt(password.clear.reveal(), prefix=PREFIXES[method], rounds=0, random=os.urandom(64))
    except OSError as e:
        raise UserError(f"the password of {password.user} cannot be hashed with {method}; use sha512") from e
    return Password(user=password.user, hashed=Secret(text))
