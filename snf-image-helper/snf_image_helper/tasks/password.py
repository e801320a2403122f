"""Passwords and authorized keys of the image's users.

A password is changed in its line of /etc/shadow: order, ageing and everything else of the file stay, the day of the
last change becomes today. Passwords come here hashed; see `hashing`. Keys are added to the first file that sshd's
AuthorizedKeysFile names, each once.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MakeFolder, Warn, WriteFile
from snf_image_helper.distribution import Account, account, encoded, sshd_settings, text
from snf_image_helper.image import Files, Image, ImageError, RootPath
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="password",
    snf_image="ChangePassword",
    groups=frozenset({"mounted", "cloud-init"}),
    phase=Phase.MOUNTED,
    summary="Set passwords and SSH keys of users",
)
SHADOW = RootPath("etc/shadow")
NO_SHELLS = ("nologin", "false")
#: musl's crypt(3) has md5, blowfish, sha256, sha512 and nothing else.
NOT_OF_MUSL = ("$y$", "$gy$", "$7$", "$sha1$")


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    actions: list[Action] = []
    if manifest.passwords:
        hashes = {}
        for password in manifest.passwords:
            assert password.hashed is not None, "main hashes passwords before it plans"
            found, hashed = account(image.files, password.user), password.hashed.reveal()
            hashes[found.name] = hashed
            actions += _doubts(image.files, found, hashed)
        actions += _passwords(image, hashes)
    if manifest.authorized_keys.strip():
        for user in manifest.users:
            actions += _keys(image.files, account(image.files, user), manifest.authorized_keys)
    return actions


def _doubts(files: Files, user: Account, hashed: str) -> list[Action]:
    """What will keep a person with the right password out."""
    if hashed.startswith(NOT_OF_MUSL) and any(name.startswith("ld-musl-") for name in files.names(RootPath("lib"))):
        raise ImageError(
            f"the password of {user.name} is hashed by a method ({hashed.split('$')[1]}) that the image's C library,"
            " musl, does not know; use PASSWD_HASHING_METHOD=sha512"
        )
    if user.shell.rpartition("/")[2] in NO_SHELLS:
        return [Warn(text=f"user {user.name} gets a password, but its shell {user.shell} lets nobody in")]
    return []


def _passwords(image: Image, hashes: dict[str, str]) -> list[Action]:
    shadow = text(image.files, "etc/shadow")
    if shadow is None:
        raise ImageError("the image has no /etc/shadow, so no password can be set")
    actions: list[Action] = [WriteFile(path=SHADOW, content=encoded(render_shadow(shadow, hashes, image.today)))]
    passwd = text(image.files, "etc/passwd") or ""
    if any(not account(image.files, user).is_shadowed for user in hashes):
        # passwd(5): only an x there makes login look into shadow.
        actions.append(WriteFile(path=RootPath("etc/passwd"), content=encoded(_look_into_shadow(passwd, set(hashes)))))
    return actions


def render_shadow(shadow: str, hashes: dict[str, str], today: int) -> str:
    """shadow(5) with new passwords; a user without a line gets one with Debian's defaults at the end."""
    left = dict(hashes)
    lines = []
    for line in shadow.split("\n"):
        fields = line.split(":")
        if fields[0] in left and len(fields) >= 3:
            fields[1:3] = [left.pop(fields[0]), str(today)]
        lines.append(":".join(fields))
    if lines[-1] == "":
        lines.pop()
    lines += [f"{user}:{hashed}:{today}:0:99999:7:::" for user, hashed in left.items()]
    return "\n".join(lines) + "\n"


def _look_into_shadow(passwd: str, users: set[str]) -> str:
    lines = [line.split(":") for line in passwd.split("\n")]
    return "\n".join(":".join([f[0], "x", *f[2:]] if f[0] in users and len(f) == 7 else f) for f in lines)


def _keys(files: Files, user: Account, keys: str) -> list[Action]:
    settings = (sshd_settings(files, "AuthorizedKeysFile") or [".ssh/authorized_keys"])[0].split()
    if not settings or settings[0].lower() == "none":
        return [Warn(text=f"sshd of the image reads no authorized keys, so those of {user.name} would have no use")]
    path = keys_path(settings[0], user)
    owner = (user.uid, user.gid)
    actions: list[Action] = []
    if path.parent.name == ".ssh" and files.entry(path.parent) is None:
        if files.entry(path.parent.parent) is None:
            actions.append(MakeFolder(path=path.parent.parent, mode=0o700, owner=owner))
        actions.append(MakeFolder(path=path.parent, mode=0o700, owner=owner))
    old = files.read(path)
    new = render_keys(old.decode("utf-8", "surrogateescape") if old is not None else "", keys)
    return [*actions, WriteFile(path=path, content=encoded(new), mode=0o600, owner=owner)]


def keys_path(setting: str, user: Account) -> RootPath:
    """sshd_config(5): %h is the home, %u the name, %U the number; relative to the home if not absolute."""
    tokens = {"%%": "%", "%h": user.home, "%u": user.name, "%U": str(user.uid)}
    shown, at = "", 0
    while at < len(setting):
        step = 2 if setting[at : at + 2] in tokens else 1
        shown += tokens.get(setting[at : at + 2], setting[at])
        at += step
    full = shown if shown.startswith("/") else f"{user.home}/{shown}"
    if ".." in full.split("/"):
        raise ImageError(f"sshd of the image keeps the keys of {user.name} at {full}, which holds '..'")
    return RootPath(full)


def render_keys(old: str, keys: str) -> str:
    present = {line.strip() for line in old.splitlines()}
    added: list[str] = []
    for line in keys.splitlines():
        if (key := line.strip()) and key not in present and key not in added:
            added.append(key)
    start = old if not old or old.endswith("\n") else f"{old}\n"
    return start + "".join(f"{key}\n" for key in added)
