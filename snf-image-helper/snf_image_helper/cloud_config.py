"""What cloud-init is given: cloud-config and meta-data, as JSON, which is YAML with every value quoted.

Source: the module reference of cloud-init (users and groups, set passwords, SSH) and its NoCloud page.
"""

from __future__ import annotations

import json
import re

from snf_image_helper.distribution import text
from snf_image_helper.image import Files, RootPath
from synnefo_light.manifest import Manifest

#: The first version whose chpasswd.users takes hashes; later ones call chpasswd.list deprecated.
USERS_SINCE = (22, 3)


def render_meta_data(manifest: Manifest) -> str:
    """The id is new with each deployment, so that an image that was booted before is set up anew."""
    data = {"instance-id": f"{manifest.instance}-{manifest.nonce[:12]}"}
    return _json(data if "hostname" in manifest.skip else data | {"local-hostname": manifest.hostname})


def render_cloud_config(manifest: Manifest, *, version: tuple[int, int]) -> str:
    """Name, host keys, passwords and keys; what a left-out task would have done is left out here too.

    Passwords must be hashed already.
    """
    config: dict[str, object] = {}
    if "hostname" not in manifest.skip:
        # The line of 127.0.1.1, as without cloud-init; the file's other lines stay.
        config |= {"preserve_hostname": False, "manage_etc_hosts": "localhost"}
    if "ssh_host_keys" not in manifest.skip:
        config["ssh_deletekeys"] = True
    if "password" not in manifest.skip:
        config |= _users(manifest, version)
    return f"#cloud-config\n{_json(config)}"


def _users(manifest: Manifest, version: tuple[int, int]) -> dict[str, object]:
    config: dict[str, object] = {"disable_root": False} if "root" in manifest.users else {}
    keys = [key for line in manifest.authorized_keys.splitlines() if (key := line.strip()) and not key.startswith("#")]
    if keys:
        # lock_passwd is on unless it is said, also for users that are there; "default" keeps the image's own.
        users = [{"name": user, "lock_passwd": False, "ssh_authorized_keys": keys} for user in manifest.users]
        config["users"] = ["default", *users]
    if manifest.passwords:
        hashes = {p.user: p.hashed.reveal() for p in manifest.passwords if p.hashed is not None}
        config |= {"ssh_pwauth": True, "chpasswd": {"expire": False, **_passwords(hashes, version)}}
    return config


def _passwords(hashes: dict[str, str], version: tuple[int, int]) -> dict[str, object]:
    if version < USERS_SINCE:
        return {"list": [f"{user}:{hashed}" for user, hashed in hashes.items()]}
    return {"users": [{"name": user, "password": hashed, "type": "hash"} for user, hashed in hashes.items()]}


def cloud_init_version(files: Files) -> tuple[int, int]:
    """Of the image's cloud-init, by its version.py; (0, 0) when it is not found."""
    for library in ("usr/lib", "usr/local/lib"):
        for python in files.names(RootPath(library)):
            for packages in ("dist-packages", "site-packages") if python.startswith("python3") else ():
                said = text(files, f"{library}/{python}/{packages}/cloudinit/version.py") or ""
                if found := re.search(r'^__VERSION__ = "(\d{1,4})\.(\d{1,4})', said, re.MULTILINE):
                    return int(found[1]), int(found[2])
    return 0, 0


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"
