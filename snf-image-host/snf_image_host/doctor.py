"""Whether a node is fit to deploy images, and leaves instances' disks alone: one finding a check, with what to do.

What decides is pure and takes what was read; `examine` reads. Nothing is changed but the accelerator's cache.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from snf_image_host import accel, probing
from snf_image_host.create import installed_helper
from snf_image_host.findings import Finding, fail, ok, warn
from snf_image_host.settings import Settings, load_variant
from snf_image_host.signature import read_keyring
from synnefo_light import __version__, events
from synnefo_light.errors import Error
from synnefo_light.files import read_bounded
from synnefo_light.log import escape
from synnefo_light.records import load_json
from synnefo_light.run import Runner
from synnefo_light.units import GIB, MIB, human

#: Programs that a deployment starts, and the Debian package of each.
PROGRAMS: Final = {
    "setpriv": "util-linux",
    "prlimit": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
    "timeout": "coreutils",
}
ROOM: Final = 2 * GIB  # in staging_dir


def examine(settings: Settings, runner: Runner) -> Iterator[Finding]:
    """All checks, in the order of a deployment. A check that breaks is a finding too."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("user", _caller),
        ("helper", lambda: _helper(settings)),
        ("qemu", lambda: _qemu(settings, runner)),
        ("accelerator", lambda: _accelerator(settings)),
        ("programs", lambda: _programs(settings)),
        ("folders", lambda: _folders(settings)),
        ("variants", lambda: _variants(settings)),
        ("signatures", lambda: _signatures(settings)),
        ("monitor", lambda: _monitor(settings)),
        ("udev", probing.udev),
        ("lvm", lambda: probing.lvm(runner)),
        ("mdadm", probing.mdadm),
        ("multipath", probing.multipath),
    )
    for name, check in checks:
        try:
            yield from check()
        except Error as e:
            # A sentence of ours ends with what would be right.
            text, _, remedy = escape(str(e)).rpartition("; ")
            yield fail(name, text or remedy, remedy if text else "mend that")
        except OSError as e:
            yield fail(name, f"{e.filename or name}: {e.strerror}", "see whether you are root")


def _caller() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield ok("user", "checked as root")
    else:
        yield warn("user", "not checked as root: some of what follows cannot be seen", "run snf-image doctor as root")


def _helper(settings: Settings) -> Iterator[Finding]:
    image = installed_helper(settings)
    described = load_json(read_bounded(image.folder / "helper.json", limit=MIB), limit=MIB)
    assert isinstance(described, dict)
    for name, entry in described["files"].items():
        digest = hashlib.sha256()
        with open(image.folder / name, "rb") as file:
            while block := file.read(MIB):
                digest.update(block)
        if digest.hexdigest() != entry.get("sha256"):
            yield fail(
                "helper",
                f"{image.folder / name} has another SHA-256 than helper.json says",
                "install the package snf-image-helper again",
            )
            return
    yield ok("helper", f"{image.folder} is whole, version {image.version}, as snf-image {__version__}")


def _qemu(settings: Settings, runner: Runner) -> Iterator[Finding]:
    found = shutil.which(settings.qemu)
    if found is None:
        yield fail("qemu", f"{settings.qemu} is not there", "install the package qemu-system-x86, or correct qemu")
        return
    said = runner([found, "--version"], timeout_s=20).text.splitlines()[:1] or [""]
    yield ok("qemu", f"{found}: {escape(said[0], limit=80)}")


def _accelerator(settings: Settings) -> Iterator[Finding]:
    helper = installed_helper(settings)
    choice = accel.choose(helper, settings) if os.geteuid() == 0 else accel.foresee(helper, settings)
    if choice is None:
        yield warn("accelerator", "not found out yet", "run snf-image accel as root")
    elif choice.accel == "kvm" or settings.accel == "tcg":
        yield ok("accelerator", f"{choice.accel}: {choice.reason}")
    else:
        yield warn(
            "accelerator",
            f"tcg: {choice.reason}",
            "deployments work, several times slower; load kvm_intel or kvm_amd, or switch on virtualisation in the "
            "firmware, then run snf-image accel --again",
        )


def _programs(settings: Settings) -> Iterator[Finding]:
    needed = PROGRAMS | ({"gpgv": "gpgv"} if settings.signature_keyrings else {})
    missing = {name: package for name, package in needed.items() if shutil.which(name) is None}
    for name, package in missing.items():
        yield fail("programs", f"{name} is not there", f"install the package {package}")
    if not missing:
        yield ok("programs", ", ".join(needed))
    try:
        user = pwd.getpwnam(settings.user)
    except KeyError:
        yield warn(
            "programs",
            f"there is no user {settings.user}: the helper VM runs as nobody, as other services may",
            "run systemd-sysusers, or install snf-image-host again",
        )
        return
    if user.pw_uid == 0:
        yield fail("programs", f"the user {settings.user} is root", "name an unprivileged one (user)")


def _folders(settings: Settings) -> Iterator[Finding]:
    again = "run systemd-tmpfiles --create, or install the packages again"
    for name in ("image_dir", "run_dir", "log_dir", "spool", "staging_dir"):
        path: Path = getattr(settings, name)
        if not path.is_dir():
            yield warn("folders", f"{path} ({name}) is not there", again)
            continue
        found = path.stat()
        if found.st_uid != 0 or found.st_mode & 0o022:
            yield fail(
                "folders",
                f"{path} ({name}) can be written by others than root",
                f"chown root {path}; chmod go-w {path}",
            )
        else:
            yield ok("folders", f"{path} ({name})")
    if settings.staging_dir.is_dir():
        free = shutil.disk_usage(settings.staging_dir).free
        if free < min(ROOM, settings.staging_limit_mib * MIB):
            yield warn("folders", f"{settings.staging_dir} has {human(free)} free", "images to convert wait there")
    if settings.spool.is_dir():
        waiting = len(events.pending(settings.spool))
        if waiting > events.SPOOL_LIMIT // 2:
            yield warn("folders", f"{waiting} events wait in {settings.spool}", "nobody takes them; see snf-events(7)")


def _variants(settings: Settings) -> Iterator[Finding]:
    files = sorted(settings.variants_dir.glob("*.toml")) if settings.variants_dir.is_dir() else []
    for path in files:
        load_variant(path.stem, settings)
    yield ok("variants", ", ".join(path.stem for path in files) or "none but default")


def _signatures(settings: Settings) -> Iterator[Finding]:
    if settings.signature_required and not settings.signature_keyrings:
        yield fail(
            "signatures", "signature_required is set without keys: nothing can be deployed", "set signature_keyrings"
        )
    for text in settings.signature_keyrings:
        path = Path(text)
        if not path.is_file():
            yield fail("signatures", f"the keyring {text} is not there", "put it there, or correct signature_keyrings")
        elif path.stat().st_mode & 0o022:
            yield fail("signatures", f"the keyring {text} can be written by others", f"chmod go-w {text}")
        else:
            read_keyring(path)
            yield ok("signatures", f"keyring {text}")


def _monitor(settings: Settings) -> Iterator[Finding]:
    path = Path(settings.progress_monitor)
    if settings.progress_monitor and not (path.is_file() or path.is_fifo()):
        yield warn(
            "monitor", f"progress_monitor {path} is neither a program, a fifo nor a file", "correct it, or leave it out"
        )
