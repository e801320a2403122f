"""Passwords of Windows users, for the first boot.

The built-in administrator and users whom the answer file creates get theirs in the answer file, in the form that it
uses for "not in clear": base64 of UTF-16, which is no protection. Other users, those of the image, get theirs from a
script that runs `net user` in Setup's specialize pass. Both are overwritten and removed when Setup is over.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from snf_image_helper.actions import Action, Warn
from snf_image_helper.answer_file import SHELL, AnswerFile, items, put, text_of
from snf_image_helper.image import Image, ImageError
from snf_image_helper.unattended import current, rewritten
from snf_image_helper.windows_scripts import SPECIALIZE, part, quoted
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="windows_password",
    snf_image="ChangePassword",
    os_families=WINDOWS,
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Set passwords of Windows users",
    after=frozenset({"unattend", "windows_hostname"}),
)
ACCOUNTS = "UserAccounts/LocalAccounts/LocalAccount"


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    actions: list[Action] = []
    if manifest.authorized_keys.strip():
        actions.append(Warn(text="SSH keys were given, which are not put into Windows; its users get passwords only"))
    if not manifest.passwords:
        return actions
    answers, facts = current(image), image.windows()
    created = _created(answers)
    administrators = {"administrator", facts.administrator}
    in_answers: dict[str, str] = {}
    commands: list[str] = []
    for password in manifest.passwords:
        if password.clear is None:
            raise ImageError(f"the password of {password.user} is given as a hash, which Windows cannot take")
        name, clear = password.user.lower(), password.clear.reveal()
        if name == "root" and manifest.os_family is None and name not in facts.users:
            name = facts.administrator  # the host took the image for a Linux, as nobody had said what it is
        if name in administrators or name in created:
            in_answers[name] = clear
        elif name in facts.users:
            commands.append(_net_user(password.user, clear))
        else:
            known = ", ".join(sorted({*administrators, *created, *facts.users})[:20])
            raise ImageError(f"the image's Windows has no user {password.user}; it has {known}")

    def change(answers: AnswerFile) -> None:
        for name, clear in in_answers.items():
            if name in administrators:
                _set_administrator(answers, clear)
            else:
                _set_created(answers, name, clear)

    actions += rewritten(image, change)
    if commands:
        actions.append(part(SPECIALIZE, "10-passwords", *commands))
    return actions


def _created(answers: AnswerFile) -> set[str]:
    accounts = items(answers.component("oobeSystem", SHELL), ACCOUNTS)
    return {name.lower() for account in accounts if (name := text_of(account, "Name"))}


def _set_administrator(answers: AnswerFile, clear: str) -> None:
    answers.set("oobeSystem", SHELL, "UserAccounts/AdministratorPassword/Value", hidden(clear, "AdministratorPassword"))
    answers.set("oobeSystem", SHELL, "UserAccounts/AdministratorPassword/PlainText", "false")


def _set_created(answers: AnswerFile, name: str, clear: str) -> None:
    for account in items(answers.component("oobeSystem", SHELL), ACCOUNTS):
        if (text_of(account, "Name") or "").lower() == name:
            put(account, "Password/Value", hidden(clear, "Password"))
            put(account, "Password/PlainText", "false")


def hidden(clear: str, element: str) -> str:
    """How Windows' own System Image Manager hides a password: with the element's name behind it, in UTF-16 and base64.

    Source: the examples of the Unattended Windows Setup Reference, AdministratorPassword and LocalAccount/Password.
    """
    return base64.b64encode((clear + element).encode("utf-16-le")).decode("ascii")


def _net_user(user: str, clear: str) -> str:
    """/y answers the question that `net user` asks about more than 14 characters."""
    try:
        return f"net user {quoted(user)} {quoted(clear)} /y"
    except ValueError as e:
        raise ImageError(f"the password of {user} cannot be set: {e}; use another, or the user Administrator") from None
