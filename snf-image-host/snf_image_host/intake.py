"""From the image's source to where it is needed: onto disk 0, or, when it must be converted, before the helper VM.

    raw            source ─► copy ─► disk 0                      extdump, ntfsdump: behind an MBR of ours
          file     checked before a reinstall, and again while it is copied
    else  file     source, read-only ─► VM (snf-source)          read here only for a checksum or a signature
          http…    source ─► nameless file in staging_dir ─► VM
    store          raw, read like a file; or nothing is read: disk 0 is a clone of it

A file in `staging_dir` never has a name, so nothing of it is left whatever dies when. What the VM is given has been
checked before it starts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence

from snf_image_host.copy import Check, Copied, Hasher, Progress, checked, copy
from snf_image_host.fetch import fetch, open_source
from snf_image_host.mbr import LEAD, plan_mbr, read_boot_code, render_mbr
from snf_image_host.params import Parameters
from snf_image_host.settings import Settings
from snf_image_host.signature import checking_signature
from snf_image_host.sources import NoImage, OpenImage, StoreImage
from snf_image_host.sources.local import OpenFile
from snf_image_host.sources.store import open_stored
from snf_image_host.target import DiskTarget
from snf_image_host.values import SIGNATURE_LIMIT
from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.manifest import ImageFormat
from synnefo_light.units import MIB

ANSWER_LIMIT = MIB


def answer_file(parameters: Parameters, settings: Settings) -> bytes | None:
    """Windows' answer file, fetched. Raises UserError, PeerError."""
    if parameters.answer_file is None:
        return None
    return fetch(parameters.answer_file, settings, what="os_answer_file", limit=ANSWER_LIMIT)


def signature_of(parameters: Parameters, settings: Settings) -> bytes | None:
    """The detached signature, fetched where it is an address. Raises UserError, PeerError."""
    signature = parameters.signature
    if signature is None or signature.source is None:
        return signature.content if signature else None
    return fetch(signature.source, settings, what="img_signature", limit=SIGNATURE_LIMIT)


def open_image(parameters: Parameters, settings: Settings, opened: contextlib.ExitStack) -> OpenImage:
    """The image ready to be read, as long as `opened` is. Raises UserError, PeerError, EnvironmentFault."""
    if parameters.stored is not None:
        return opened.enter_context(open_stored(parameters.stored, settings))
    assert not isinstance(parameters.source, NoImage | StoreImage)
    return open_source(parameters.source, settings, opened)


@contextlib.contextmanager
def checks_of(parameters: Parameters, settings: Settings, signature: bytes | None) -> Iterator[tuple[Check, ...]]:
    """What must be true of the image's bytes. Raises EnvironmentFault, ToolError."""
    with contextlib.ExitStack() as opened:
        checks: list[Check] = [Hasher(parameters.checksum)] if parameters.checksum else []
        if signature is not None:
            checks.append(opened.enter_context(checking_signature(signature, settings)))
        yield tuple(checks)


def lead_of(image_format: ImageFormat) -> int:
    """Bytes that stand before the image on the disk."""
    return 0 if image_format is ImageFormat.DISKDUMP else LEAD


def check_first(source: OpenImage, parameters: Parameters, settings: Settings, *, signature: bytes | None) -> None:
    """Read a raw image of the image folder once more than its copy does, so that a wrong one is known before an old
    system is overwritten. What a server sends comes once, and is checked while it is copied. Raises Error.
    """
    if isinstance(source, OpenFile):
        with checks_of(parameters, settings, signature) as checks:
            if checks:
                for _ in checked(source.chunks(), size=source.size, checks=checks, progress=lambda done, total: None):
                    pass


def copy_image(
    source: OpenImage,
    target: DiskTarget,
    parameters: Parameters,
    settings: Settings,
    *,
    signature: bytes | None,
    progress: Progress,
    writing: Callable[[], None],
) -> Copied:
    """Write a raw image onto disk 0. Raises Error; the disk holds a part of it if `writing` was called before."""
    lead = b""
    if parameters.image_format is not ImageFormat.DISKDUMP:
        plan = plan_mbr(parameters.image_format, image=source.size, disk=target.size, signature=secrets.randbits(32))
        lead = render_mbr(plan, code=read_boot_code())
    with checks_of(parameters, settings, signature) as checks:
        writing()
        return copy(source.chunks(), size=source.size, target=target, lead=lead, checks=checks, progress=progress)


def check_staging(source: OpenImage, settings: Settings, *, image: str) -> None:
    """Raises UserError for an image that staging_dir may not hold."""
    limit = settings.staging_limit_mib * MIB
    if not isinstance(source, OpenFile) and source.size > limit:
        raise UserError(
            f"the image {image} has {source.size} bytes and is to be converted, for which at most {limit} bytes may be "
            f"staged; raise staging_limit_mib in the configuration, or put the image into the image folder"
        )


def stage_image(
    source: OpenImage,
    parameters: Parameters,
    settings: Settings,
    opened: contextlib.ExitStack,
    *,
    signature: bytes | None,
    progress: Progress,
) -> int:
    """A read-only descriptor of the image's bytes, checked, as long as `opened` is. Raises Error."""
    with checks_of(parameters, settings, signature) as checks:
        if not isinstance(source, OpenFile):
            return opened.enter_context(_staged(source, settings, checks, progress))
        if checks:
            for _ in checked(source.chunks(), size=source.size, checks=checks, progress=progress):
                pass
        return source.fd


@contextlib.contextmanager
def _staged(source: OpenImage, settings: Settings, checks: Sequence[Check], progress: Progress) -> Iterator[int]:
    folder = settings.staging_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder, prefix=".staged-", buffering=0)  # noqa: SIM115 - closed below
    except OSError as e:
        raise EnvironmentFault(f"the folder {folder} (staging_dir) cannot be used: {e.strerror}") from e
    with file:
        fd = file.fileno()
        for offset, data in checked(source.chunks(), size=source.size, checks=checks, progress=progress):
            rest, position = data, offset
            while rest:
                try:
                    count = os.pwrite(fd, rest, position)
                except OSError as e:
                    raise EnvironmentFault(f"staging the image in {folder} at byte {position}: {e.strerror}") from e
                rest, position = rest[count:], position + count
        os.ftruncate(fd, source.size)
        # QEMU matches the access mode of a descriptor with that of the disk, so it needs one opened read-only.
        readonly = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield readonly
    finally:
        os.close(readonly)
