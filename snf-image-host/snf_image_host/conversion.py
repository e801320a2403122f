"""An image becomes a raw disk in a file of its own: what a deployment does to disk 0, and nothing after it.

    file, http(s), ftp(s) ─► checks ─► as it is, or by the helper VM ─► the output, cut to the image's size

The output is as large as it may become, with holes, while it is written. Commit point: its last change of length, after
which it is durable. A failure leaves it empty.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from snf_image_host import deploy
from snf_image_host.channel import ConsoleLog
from snf_image_host.deploy import Deployment
from snf_image_host.journal import Entry, Started
from snf_image_host.params import Parameters, parse_parameters
from snf_image_host.plan import check_parameters
from snf_image_host.reporter import Reporter
from snf_image_host.settings import Settings
from snf_image_host.values import INLINE, SIGNATURE_LIMIT
from snf_image_host.vm import HelperImage
from synnefo_light.encodings import encoding_of
from synnefo_light.errors import EnvironmentFault, Error, PeerError, ProtocolError, UserError
from synnefo_light.files import read_bounded
from synnefo_light.ganeti import OsDisk, OsEnv
from synnefo_light.log import escape, logger
from synnefo_light.units import SECTOR

#: What the log calls it, where a deployment has an instance's name.
NAME: Final = "convert"
#: Nothing of what the image holds is changed.
UNTOUCHED: Final = '{"EXCLUDE_ALL_TASKS": "yes"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What is asked for, as words; an empty one is as if it had not been given."""

    source: str
    format: str = ""
    compression: str = ""
    checksum: str = ""
    signature: str = ""
    size_limit: int


def parse_conversion(wanted: Conversion, settings: Settings, helper: HelperImage) -> tuple[Parameters, Settings]:
    """As a deployment's parameters, with the settings under which a file of any folder is an image. Raises UserError.

    An address is one as img_id and img_signature take it; anything else is a path, whose own end tells the encoding
    where it is not given, wherever links lead.
    """
    img_id, source_format, compression = wanted.source, wanted.format, wanted.compression
    if not is_address(wanted.source):
        # A link's own name is what a person reads; what it leads to may be called anything.
        by_name = encoding_of(Path(wanted.source).name)
        source_format, compression = source_format or by_name[0].value, compression or by_name[1].value
        path = Path(wanted.source).resolve()
        img_id, settings = f"local://{path.name}", replace(settings, image_dir=path.parent)
    elif wanted.source.lower().startswith(("local:", "file:", "store:", "pithosmap:")):
        raise UserError(
            f"{escape(wanted.source, limit=200)} cannot be converted; give a path, or an http or ftp address"
        )
    given = {
        "img_id": img_id,
        "img_format": "diskdump",
        "img_properties": UNTOUCHED,
        "img_source_format": source_format,
        "img_compression": compression,
        "img_checksum": wanted.checksum,
        "img_signature": _signature(wanted.signature),
    }
    try:
        parameters = parse_parameters({name: text for name, text in given.items() if text}, tasks=helper.tasks)
        check_parameters(parameters, settings, helper)
    except UserError as e:
        raise UserError(_in_our_words(str(e))) from None
    return replace(parameters, image=parameters.image.removeprefix("local://")), settings


def is_address(text: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def convert(wanted: Conversion, output: Path, settings: Settings, helper: HelperImage) -> int:
    """Fill `output`, a new or empty file, with the raw disk that the image is; returns its bytes. Raises Error."""
    parameters, settings = parse_conversion(wanted, settings, helper)
    fd, made = _open_empty(output)
    try:
        os.ftruncate(fd, wanted.size_limit)
        size = _fill(parameters, output, wanted.size_limit, settings, helper)
        os.ftruncate(fd, -(-size // SECTOR) * SECTOR)
        os.fsync(fd)
        return os.fstat(fd).st_size
    except BaseException as e:
        os.ftruncate(fd, 0)
        if made:
            output.unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise EnvironmentFault(f"{output} cannot be written: {e.strerror}") from e
        raise
    finally:
        os.close(fd)


def _fill(parameters: Parameters, output: Path, limit: int, settings: Settings, helper: HelperImage) -> int:
    """Bytes of the image, which are the first of the file then."""
    sizes: list[int] = []

    def note(entry: Entry) -> None:
        if isinstance(entry.record, Started):
            sizes.append(entry.record.size)

    reporter, console = Reporter(NAME, listeners={"conversion": note}), ConsoleLog()
    try:
        deploy.create(_environment(output), parameters, settings, helper, reporter, console, Deployment())
    except Error as e:
        for line in console.lines()[-10:]:
            logger.info("console: %s", line)
        raise _said_otherwise(e) from e
    size = reporter.image_size if parameters.converts else sizes[0]
    if size is None or size > limit:
        raise ProtocolError(f"the helper VM did not say how large the disk of {parameters.image} is")
    return size


def _environment(output: Path) -> OsEnv:
    """What Ganeti would say of an instance whose only disk is the output."""
    disk = OsDisk(index=0, uuid="", size=None, path=output, uri=None, mode="rw")
    return OsEnv(
        instance=NAME,
        uuid="",
        old_name=None,
        reinstall=False,
        hypervisor="",
        variant="default",
        disks=(disk,),
        nics=(),
        parameters={},
        debug=0,
    )


def _open_empty(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether the file is new. Raises UserError for one that is not empty, or no file."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        try:
            fd, made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
        except FileExistsError:
            fd, made = os.open(path, flags), False
    except OSError as e:
        raise UserError(f"{path}, which is to become the disk, cannot be opened: {e.strerror}") from e
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        return fd, made
    os.close(fd)
    raise UserError(f"{path}, which is to become the disk, is there and not an empty file; name a new one")


def _signature(text: str) -> str:
    """As img_signature takes it: of a file its content."""
    if not text or is_address(text):
        return text
    try:
        return INLINE + base64.b64encode(read_bounded(Path(text), limit=SIGNATURE_LIMIT)).decode()
    except OSError as e:
        raise UserError(f"the signature {escape(text, limit=200)} cannot be read: {e.strerror}") from e


def _said_otherwise(error: Error) -> Error:
    """The same error in our words, as far as its kind goes: an error may need more than its sentence."""
    kind = next((kind for kind in (UserError, EnvironmentFault) if isinstance(error, kind)), PeerError)
    sentence = _in_our_words(str(error))
    return error if sentence == str(error) else kind(sentence)


def _in_our_words(sentence: str) -> str:
    """There is no OS parameter and no disk 0 of Ganeti's here."""
    words = re.sub(r"--disk 0:size=?", "--max-size ", sentence).replace("  ", " ")
    for theirs, ours in (
        (f"disk 0 of {NAME} is", "the disk may have"),
        ("img_source_format", "--format"),
        ("img_compression", "--compression"),
        ("img_checksum", "--checksum"),
        ("img_signature", "--signature"),
    ):
        words = words.replace(theirs, ours)
    return words
