"""Host keys that no other instance of the image has.

The old ones are removed. New ones come from the helper's own ssh-keygen, because the image's code is never run here,
and because Debian makes keys only when its package is installed. cloud-init replaces them when it finds a datasource,
and when it finds none they are what lets sshd start. Only a system whose own service makes missing keys at each boot
(Fedora, Arch, SUSE, Alpine, Gentoo) is left to do so.

An RSA key is made only where sshd_config names it or the image had no other: finding its primes takes seconds of CPU
where there is no KVM, and every client since OpenSSH 5.7 takes one of the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from snf_image_helper.actions import Action, GenerateHostKey, RemoveFile, Warn
from snf_image_helper.distribution import exists, is_file, sshd_settings
from snf_image_helper.image import Files, Image, RootPath, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="ssh_host_keys",
    snf_image="DeleteSSHKeys",
    groups=frozenset({"mounted", "cloud-init"}),
    phase=Phase.MOUNTED,
    summary="Replace the SSH host keys",
)
FOLDER = RootPath("etc/ssh")
UNITS = tuple(
    f"{base}/systemd/system/{unit}"
    for base in ("usr/lib", "lib", "etc")
    for unit in ("sshd-keygen@.service", "sshd-keygen.service", "sshdgenkeys.service")
)
OPENRC = RootPath("etc/init.d/sshd")
KINDS = ("ed25519", "ecdsa", "rsa")


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    files = image.files
    if not exists(files, "etc/ssh/sshd_config", "usr/sbin/sshd"):
        raise Skipped("the image has no SSH server")
    names = files.names(FOLDER)
    old = [name for name in names if re.fullmatch(r"ssh_host_[a-z0-9]+_key(\.pub)?", name)]
    actions: list[Action] = [RemoveFile(path=FOLDER / name) for name in old]
    configured = sshd_settings(files, "HostKey")
    for value in configured:
        if value.startswith("/") and ".." not in value.split("/") and (path := RootPath(value)).parent != FOLDER:
            actions += [RemoveFile(path=path), RemoveFile(path=RootPath(f"{path}.pub"))]
            actions.append(Warn(text=f"sshd's host key {path} was removed; the image must make a new one itself"))
    if _makes_missing_keys(files) or files.entry(FOLDER) is None:
        return actions
    had = [kind for kind in KINDS if f"ssh_host_{kind}_key" in old]
    actions += [
        GenerateHostKey(kind=kind, path=FOLDER / f"ssh_host_{kind}_key", comment=f"root@{manifest.hostname}")
        for kind in _wanted(had, configured)
    ]
    return actions


def _makes_missing_keys(files: Files) -> bool:
    """Whether a service makes keys whenever there are none: a unit, SUSE's script, OpenRC's start of sshd."""
    if any(_unit_makes_them(files, RootPath(unit)) for unit in UNITS) or exists(files, "usr/sbin/sshd-gen-keys-start"):
        return True
    service = files.read(OPENRC) if is_file(files, OPENRC) else None
    return service is not None and b"openrc-run" in service and b"ssh-keygen -A" in service


def _unit_makes_them(files: Files, unit: RootPath) -> bool:
    """Debian 13's does so on systemd's "first boot" alone, which the boot after a deployment is not: an empty
    machine-id does not count as one (machine-id(5)). A masked unit is a link to /dev/null, no file."""
    return is_file(files, unit) and b"ConditionFirstBoot" not in (files.read(unit) or b"")


def _wanted(had: Sequence[str], configured: Sequence[str]) -> Sequence[str]:
    """The kinds of keys to make: those there were, without rsa if it can be done without."""
    quick = [kind for kind in had or KINDS if kind != "rsa"]
    needs_rsa = not quick or str(FOLDER / "ssh_host_rsa_key") in configured
    return [*quick, "rsa"] if needs_rsa else quick
