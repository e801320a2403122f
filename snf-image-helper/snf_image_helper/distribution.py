"""What kind of system the image holds, read from its files: init, release, users, sshd's settings.

Everything here is hostile text, so it is only ever compared and looked up, never run or expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snf_image_helper.image import Files, ImageError, Kind, RootPath

#: Of all files that sshd_config includes; a distribution has a handful.
INCLUDED_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A line of /etc/passwd."""

    name: str
    password: str
    uid: int
    gid: int
    home: str
    shell: str

    @property
    def is_shadowed(self) -> bool:
        """Whether login looks into shadow for the password (passwd(5))."""
        return self.password == "x"  # noqa: S105


def exists(files: Files, *paths: str) -> bool:
    return any(files.entry(RootPath(path)) is not None for path in paths)


def has_systemd(files: Files) -> bool:
    return exists(files, "usr/lib/systemd/systemd", "lib/systemd/systemd")


def is_enabled(files: Files, unit: str) -> bool:
    """Whether systemd starts the unit at boot: a link to it in a .wants folder of /etc or of the packages.

    Not where it is masked: by a link to /dev/null, or an empty file, of its name (systemctl(1)).
    """
    own = RootPath("etc/systemd/system") / unit
    if files.link(own) == "/dev/null" or (files.link(own) is None and is_file(files, own) and not files.read(own)):
        return False
    places = (f"{base}/{target}.wants" for base in ("etc", "usr/lib") for target in _targets(base))
    return any(files.link(RootPath(place) / unit) is not None for place in places)


def _targets(base: str) -> tuple[str, ...]:
    return tuple(f"systemd/system/{name}.target" for name in ("multi-user", "network-online", "sockets", "sysinit"))


def os_release(files: Files) -> dict[str, str]:
    """os-release(5) as far as it is needed: plain values, without or within one pair of quotes."""
    lines = (text(files, "etc/os-release") or text(files, "usr/lib/os-release") or "").split("\n")
    pairs = (line.strip().partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name: value.strip("\"'") for name, _, value in pairs if name}


def has_cloud_init(files: Files) -> bool:
    return exists(files, "usr/bin/cloud-init")


def text(files: Files, path: str) -> str | None:
    """A text file, bytes that are not UTF-8 kept by surrogates so that they can be written back."""
    content = files.read(RootPath(path))
    return content.decode("utf-8", "surrogateescape") if content is not None else None


def encoded(content: str) -> bytes:
    return content.encode("utf-8", "surrogateescape")


def accounts(files: Files) -> dict[str, Account]:
    """The accounts of /etc/passwd by name, the first of a name. Lines that are not passwd(5)'s are passed over."""
    found: dict[str, Account] = {}
    for line in (text(files, "etc/passwd") or "").split("\n"):
        fields = line.split(":")
        if len(fields) == 7:
            name, password, _, _, _, home, shell = fields
            uid, gid = parse_id(fields[2]), parse_id(fields[3])
            if uid is not None and gid is not None:
                account = Account(name=name, password=password, uid=uid, gid=gid, home=home or "/", shell=shell)
                found.setdefault(name, account)
    return found


def parse_id(field: str) -> int | None:
    """The number of a user or a group. None for what is none, and for 2**32-1, by which chown(2) means: unchanged."""
    plain = field.isascii() and field.isdigit() and len(field) <= 10
    return int(field) if plain and int(field) < (1 << 32) - 1 else None


def account(files: Files, name: str) -> Account:
    """Raises ImageError naming the users there are."""
    known = accounts(files)
    if name not in known:
        some = ", ".join(sorted(known)[:12]) or "none"
        raise ImageError(f"user {name} is not in the image's /etc/passwd, which has {some}")
    return known[name]


def group_ids(files: Files) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in (text(files, "etc/group") or "").split("\n"):
        fields = line.split(":")
        number = parse_id(fields[2]) if len(fields) == 4 else None
        if number is not None:
            found.setdefault(fields[0], number)
    return found


def sshd_settings(files: Files, keyword: str) -> list[str]:
    """What sshd_config says for a keyword outside of Match blocks, in sshd's order: the first one counts.

    `Include` is followed one level, for names with one * at the most, up to INCLUDED_LIMIT files (sshd_config(5)).
    """
    found: list[str] = []
    for line in _sshd_lines(files):
        word, _, value = line.replace("=", " ", 1).strip().partition(" ")
        if word.lower() == keyword.lower():
            found.append(value.strip().strip('"'))
    return found


def _sshd_lines(files: Files) -> Iterator[str]:
    left = INCLUDED_LIMIT
    for line in (text(files, "etc/ssh/sshd_config") or "").split("\n"):
        words = line.split()
        if words[:1] and words[0].lower() == "match":
            return
        if words[:1] and words[0].lower() == "include":
            for pattern in words[1:]:
                paths = _included(files, pattern)[:left] if left else []
                left -= min(left, max(len(paths), 1))
                for path in paths:
                    for inner in (text(files, path) or "").split("\n"):
                        if inner.split()[:1] and inner.split()[0].lower() == "match":
                            break
                        yield inner
        else:
            yield line


def _included(files: Files, pattern: str) -> list[str]:
    folder, _, name = pattern.rpartition("/")
    folder = folder if pattern.startswith("/") else f"etc/ssh/{folder}"
    start, star, end = name.partition("*")
    if ".." in folder.split("/") or "*" in end:
        return []
    names = files.names(RootPath(folder)) if star else (name,)
    fits = [n for n in names if not star or (n.startswith(start) and n[len(start) :].endswith(end))][:INCLUDED_LIMIT]
    return [f"{folder}/{n}" for n in fits if is_file(files, RootPath(folder) / n)]


def is_file(files: Files, path: RootPath) -> bool:
    entry = files.entry(path)
    return entry is not None and entry.kind is Kind.FILE
