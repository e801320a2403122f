"""What Windows an image holds, told by its registry, and where Windows looks for what we write.

The registry is read by `hives`, in a process of its own; what it found is plain data until `parse_facts` has had it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from snf_image_helper.image import ImageError, RootPath

Architecture = Literal["amd64", "x86", "arm64"]

HIVES = RootPath("Windows/System32/config")
PANTHER = RootPath("Windows/Panther")
SCRIPTS = RootPath("Windows/SnfScripts")
SETUP_SCRIPTS = RootPath("Windows/Setup/Scripts")
LOG = r"%WINDIR%\Panther\snf-image.log"
GENERALIZED = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
BUILT_IN_ADMINISTRATOR = 500  # the last part of its SID (RID), whatever its name is
VISTA = (6, 0)
USERS_LIMIT = 10_000

_ARCHITECTURES: Mapping[str, Architecture] = {"amd64": "amd64", "x86": "x86", "arm64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One installation of Windows. `users` are those of SAM: their names in lower case, and the number of each."""

    architecture: Architecture
    version: tuple[int, int]
    image_state: str
    control_set: int
    remote_desktop_denied: int | None
    unattend_file: str | None  # where the registry says that the answer file is
    users: Mapping[str, int]
    system_is_merged: bool  # False: changes of SYSTEM are still in its log, for Windows to merge

    @property
    def administrator(self) -> str:
        """The name of the built-in administrator, which may have been renamed; in lower case."""
        return next((name for name, rid in self.users.items() if rid == BUILT_IN_ADMINISTRATOR), "administrator")


def parse_facts(found: Mapping[str, object]) -> Facts:
    """What `hives` read, checked. Raises ImageError when it is no Windows that we can customise."""
    version = _version(found)
    if version < VISTA:
        raise ImageError(
            f"the image holds Windows NT {version[0]}.{version[1]}, older than Vista, which cannot be customised; "
            "deploy it with EXCLUDE_ALL_TASKS=yes"
        )
    named = str(found["architecture"]).lower()
    if named not in _ARCHITECTURES:
        raise ImageError(f"the image's Windows is for the processor {named[:20]!r}; amd64, x86 and arm64 are known")
    control_set = found["control_set"]
    if not isinstance(control_set, int) or not 1 <= control_set <= 999:
        raise ImageError(f"the image's registry selects the control set {control_set!r}; there are 1 to 999")
    users = cast("Mapping[str, int]", found["users"])
    denied, unattend = found["remote_desktop_denied"], found["unattend_file"]
    return Facts(
        architecture=_ARCHITECTURES[named],
        version=version,
        image_state=str(found["image_state"]),
        control_set=control_set,
        remote_desktop_denied=denied if isinstance(denied, int) else None,
        unattend_file=unattend if isinstance(unattend, str) and unattend else None,
        users={name.lower(): rid for name, rid in users.items()},
        system_is_merged=bool(found["system_is_merged"]),
    )


def _version(found: Mapping[str, object]) -> tuple[int, int]:
    """Since Windows 10 in two numbers of their own, while CurrentVersion stays 6.3 for the sake of old programs."""
    major, minor = found["major"], found["minor"]
    if isinstance(major, int) and isinstance(minor, int):
        return major, minor
    parts = str(found["current_version"]).split(".")
    if len(parts) == 2 and all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        return int(parts[0]), int(parts[1])
    raise ImageError(f"the image's registry gives its Windows the version {str(found['current_version'])[:20]!r}")


def places(facts: Facts) -> tuple[RootPath, ...]:
    """Where Windows looks for an answer file after sysprep, in its order, removable media left out.

    Source: Windows Setup Automation Overview, "implicit answer file search order".
    """
    pointed = _path_of(facts.unattend_file) if facts.unattend_file is not None else None
    known = [
        PANTHER / "Unattend/unattend.xml",
        PANTHER / "Unattend/autounattend.xml",
        PANTHER / "unattend.xml",
        PANTHER / "autounattend.xml",
        RootPath("Windows/System32/Sysprep/unattend.xml"),
        RootPath("unattend.xml"),
    ]
    return tuple(dict.fromkeys([pointed, *known] if pointed is not None else known))


def target(facts: Facts) -> RootPath:
    """Where our answer file goes: to where the registry points, or where offline images have theirs."""
    pointed = _path_of(facts.unattend_file) if facts.unattend_file is not None else None
    return pointed if pointed is not None else PANTHER / "unattend.xml"


def _path_of(path: str) -> RootPath | None:
    """The image's path for one of Windows on its system drive; None for one elsewhere, or that no script can name."""
    plain = path.strip().strip('"').replace("/", "\\")
    for prefix, folder in (
        ("%windir%\\", "Windows"),
        ("%systemroot%\\", "Windows"),
        ("%systemdrive%\\", ""),
        ("c:\\", ""),
    ):
        if plain.lower().startswith(prefix):
            rest = plain[len(prefix) :].split("\\")
            plainly = path.isascii() and path.isprintable() and not any(c in part for part in rest for c in '%:"*?<>|')
            if rest[-1] and ".." not in rest and plainly:
                return RootPath("/".join([folder, *rest]))
    return None


def windows_path(path: RootPath) -> str:
    """How a script inside names a file of the system drive."""
    return "%SystemDrive%" + str(path).replace("/", "\\")
