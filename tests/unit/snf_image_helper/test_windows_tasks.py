"""What the tasks of Windows plan for images that are only a description."""

from __future__ import annotations

import base64
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from snf_image_helper import answer_file, windows
from snf_image_helper.actions import Action, GrowNtfs, RemoveFile, SetRegistryValue, Warn, WriteFile
from snf_image_helper.answer_file import SHELL
from snf_image_helper.image import FilesystemKind, Image, ImageError, RootPath, Skipped
from snf_image_helper.tasks.windows_hostname import computer_name
from snf_image_helper.tasks.windows_password import hidden
from snf_image_helper.windows import Facts, parse_facts, places, target
from snf_image_helper.windows_scripts import quoted

from tests.unit.snf_image_helper.fake_image import fake_image, manifest

FACTS = Facts(
    architecture="amd64",
    version=(10, 0),
    image_state=windows.GENERALIZED,
    control_set=1,
    remote_desktop_denied=0,
    unattend_file=None,
    users={"administrator": 500, "guest": 501, "alice": 1001},
    system_is_merged=True,
)
PANTHER = "Windows/Panther/unattend.xml"
TREE: dict[str, str | bytes | None] = {
    "Windows/Panther": None,
    "Windows/Setup": None,
    "Windows/System32/config/SYSTEM": b"regf",
}
OURS = answer_file.default("amd64", (10, 0), "UTC").render()
INSTALLED = {**TREE, PANTHER: OURS, "Windows/SnfScripts/specialize": None, "Windows/SnfScripts/finish": None}


def image(tree: Mapping[str, str | bytes | None] = INSTALLED, **facts: Any) -> Image:
    made = fake_image(tree, kind=FilesystemKind.NTFS)
    changed = dataclasses.replace(FACTS, **facts)
    return dataclasses.replace(made, windows=lambda: changed)


def plan(task: str, image: Image, **asked: object) -> Sequence[Action]:
    asked = {"os_family": "windows", "users": ["Administrator"], **asked}
    planned: Sequence[Action] = importlib.import_module(f"snf_image_helper.tasks.{task}").plan(image, manifest(**asked))
    return planned


def written(actions: Sequence[Action], path: str) -> bytes:
    (found,) = (a for a in actions if isinstance(a, WriteFile) and a.path == RootPath(path))
    return found.content


def said(actions: Sequence[Action], element: str, *, phase: Any = "specialize", path: str = PANTHER) -> str | None:
    return answer_file.parse(written(actions, path), "amd64").get(phase, SHELL, element)


# --- unattend


def test_without_any_answer_file_ours_is_written() -> None:
    planned = plan("unattend", image(TREE), windows={"timezone": "UTC", "product_key": "A-B"})
    assert said(planned, "TimeZone") == "UTC" and said(planned, "ProductKey") == "A-B"
    assert said(planned, "OOBE/HideEULAPage", phase="oobeSystem") == "true"
    assert b"Specialize.cmd" in written(planned, PANTHER)
    (file,) = (a for a in planned if isinstance(a, WriteFile) and a.path == RootPath(PANTHER))
    assert (file.mode, file.owner) == (0o700, (0, 0))


def own(owner: str) -> bytes:
    answers = answer_file.default("amd64", (10, 0), "UTC")
    answers.set("specialize", SHELL, "RegisteredOwner", owner)
    return answers.render()


@pytest.mark.parametrize("place", ["unattend.xml", "Windows/System32/Sysprep/unattend.xml", PANTHER])
def test_the_images_own_answer_file_is_the_one_to_begin_with(place: str) -> None:
    planned = plan("unattend", image({**TREE, place: own("image")}))
    assert said(planned, "RegisteredOwner") == "image"


def test_an_answer_file_that_windows_would_take_before_ours_goes_away() -> None:
    first = "Windows/Panther/Unattend/unattend.xml"
    planned = plan("unattend", image({**TREE, first: own("first"), PANTHER: own("second")}))
    assert said(planned, "RegisteredOwner") == "first"
    assert RemoveFile(path=RootPath(first)) in planned


def test_a_given_answer_file_beats_the_images() -> None:
    given = base64.b64encode(own("given")).decode()
    planned = plan("unattend", image({**TREE, PANTHER: own("image")}), windows={"answer_file": given})
    assert said(planned, "RegisteredOwner") == "given"


def test_ignore_unattend_puts_ours_in_its_place() -> None:
    planned = plan("unattend", image({**TREE, PANTHER: own("image")}), windows={"ignore_unattend": True})
    assert said(planned, "RegisteredOwner") is None
    assert said(planned, "TimeZone") == "GMT Standard Time"


def test_an_answer_file_that_is_done_with_does_not_count() -> None:
    spent = own("past").replace(b'pass="specialize"', b'pass="specialize" wasPassProcessed="true"')
    spent = spent.replace(b'pass="oobeSystem"', b'pass="oobeSystem" wasPassProcessed="true"')
    assert said(plan("unattend", image({**TREE, PANTHER: spent})), "RegisteredOwner") is None


def test_ours_goes_where_the_registry_points() -> None:
    facts = {"unattend_file": r"C:\Windows\Deploy\answers.xml"}
    planned = plan("unattend", image({**TREE, PANTHER: own("image")}, **facts))
    assert said(planned, "RegisteredOwner", path="Windows/Deploy/answers.xml") == "image"
    assert b"%SystemDrive%\\Windows\\Deploy\\answers.xml" in written(planned, "Windows/SnfScripts/Finish.cmd")


def test_a_bad_answer_file_of_the_image_is_named() -> None:
    with pytest.raises(ImageError, match=r"/Windows/Panther/unattend.xml of the image is not usable.*IGNORE_UNATTEND"):
        plan("unattend", image({**TREE, PANTHER: "<!DOCTYPE x><x/>"}))


@pytest.mark.parametrize("state", ["IMAGE_STATE_COMPLETE", "IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE", ""])
def test_a_windows_that_was_not_generalised_is_refused(state: str) -> None:
    with pytest.raises(ImageError, match="sysprep /generalize /oobe /shutdown"):
        plan("unattend", image(TREE, image_state=state))


def test_the_images_own_setup_complete_is_kept_behind_ours() -> None:
    path = "Windows/Setup/Scripts/SetupComplete.cmd"
    planned = plan("unattend", image({**TREE, path: b"@echo off\r\nmine.exe\r\nexit\r\n"}))
    lines = written(planned, path).split(b"\r\n")
    assert b"Finish.cmd" in lines[0] and lines[1:] == [b"@echo off", b"mine.exe", b"exit", b""]
    again = plan("unattend", image({**TREE, path: written(planned, path)}))
    assert not any(isinstance(a, WriteFile) and a.path == RootPath(path) for a in again)


@pytest.mark.parametrize(
    ("asked", "why"), [({"cloud_init": {}}, "CLOUD_INIT"), ({"custom_task": "eA=="}, "CUSTOM_TASK")]
)
def test_what_only_other_systems_have_is_refused(asked: dict[str, object], why: str) -> None:
    with pytest.raises(ImageError, match=why):
        plan("unattend", image(TREE), **asked)


# --- host name


def test_the_computers_name_is_the_host_names_first_part() -> None:
    assert said(plan("windows_hostname", image(), hostname="web1.example.org"), "ComputerName") == "web1"


@pytest.mark.parametrize("name", ["a", "fifteen-letters", "1web", "WEB-1"])
def test_names_that_windows_takes(name: str) -> None:
    assert computer_name(f"{name}.example.org") == name


@pytest.mark.parametrize("name", ["sixteen-letters-", "sixteenletters16", "12345", "-a", "a-", "a_b"])
def test_names_that_windows_does_not_take(name: str) -> None:
    with pytest.raises(ImageError, match="at most 15"):
        computer_name(name)


def test_without_the_answer_file_the_name_has_nowhere_to_go() -> None:
    with pytest.raises(ImageError, match="keep InstallUnattend"):
        plan("windows_hostname", image(TREE))


# --- passwords


def test_windows_own_example_of_a_hidden_password() -> None:
    """From the Unattended Windows Setup Reference."""
    value = "cAB3AEEAZABtAGkAbgBpAHMAdAByAGEAdABvAHIAUABhAHMAcwB3AG8AcgBkAA=="
    assert hidden("pw", "AdministratorPassword") == value


def test_the_built_in_administrator_is_known_by_its_number() -> None:
    renamed = image(users={"chef": 500, "alice": 1001})
    for user in ("chef", "Chef", "Administrator"):
        planned = plan("windows_password", renamed, passwords=[{"user": user, "clear": "pw"}])
        value = said(planned, "UserAccounts/AdministratorPassword/Value", phase="oobeSystem")
        assert value == hidden("pw", "AdministratorPassword")


def test_a_user_that_the_answer_file_creates_has_the_password_there() -> None:
    answers = answer_file.default("amd64", (10, 0), "UTC")
    accounts = answer_file.child(
        answer_file.child(answers.component("oobeSystem", SHELL), "UserAccounts"), "LocalAccounts"
    )
    answer_file.put(answer_file.add(accounts, "LocalAccount"), "Name", "Bob")
    made = image({**INSTALLED, PANTHER: answers.render()})
    planned = plan("windows_password", made, passwords=[{"user": "bob", "clear": "pw"}])
    value = said(planned, "UserAccounts/LocalAccounts/LocalAccount/Password/Value", phase="oobeSystem")
    assert value == hidden("pw", "Password")


def test_a_user_of_the_image_gets_a_script() -> None:
    planned = plan("windows_password", image(), passwords=[{"user": "Alice", "clear": "p w"}])
    script = written(planned, "Windows/SnfScripts/specialize/10-passwords.cmd")
    assert script == b'@echo off\r\nnet user ^"Alice^" ^"p w^" /y\r\n'


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ({"user": "mallory", "clear": "x"}, "no user mallory; it has administrator, alice, guest"),
        ({"user": "Administrator", "hashed": "$6$a$b"}, "Windows cannot take"),
        ({"user": "alice", "clear": "é"}, "printable ASCII"),
        ({"user": "alice", "clear": "a\r\ndel"}, "printable ASCII"),
    ],
)
def test_passwords_that_cannot_be_set_are_refused(password: dict[str, str], why: str) -> None:
    with pytest.raises(ImageError, match=why) as caught:
        plan("windows_password", image(), passwords=[password])
    assert "é" not in str(caught.value) and "$6$" not in str(caught.value)


def test_the_root_of_an_image_of_unknown_family_is_the_administrator() -> None:
    planned = plan("windows_password", image(), os_family=None, passwords=[{"user": "root", "clear": "pw"}])
    assert said(planned, "UserAccounts/AdministratorPassword/PlainText", phase="oobeSystem") == "false"


def test_keys_are_warned_of() -> None:
    (warning,) = plan("windows_password", image(), authorized_keys="ssh-ed25519 AAAA me\n")
    assert isinstance(warning, Warn) and "SSH keys" in warning.text


def as_cmd_reads(line: str) -> str:
    """What cmd.exe makes of a line of a batch file before it starts the program."""
    seen, quoting, at = "", False, 0
    while at < len(line):
        c = line[at]
        if c == "%":
            assert line[at + 1] == "%", "a single % begins a variable"
            at += 1
        elif c == "^" and not quoting:
            at += 1
            c = line[at]
        elif c == '"':
            quoting = not quoting
        else:
            assert quoting or c not in "()!<>&|", f"{c} has its meaning for cmd.exe"
        seen += c
        at += 1
    return seen


def as_programs_read(seen: str) -> list[str]:
    """The words that the C runtime makes of a command line."""
    words, word, inside, at = [], "", False, 0
    while at < len(seen):
        slashes = 0
        while at < len(seen) and seen[at] == "\\":
            slashes, at = slashes + 1, at + 1
        if at < len(seen) and seen[at] == '"':
            word += "\\" * (slashes // 2)
            if slashes % 2:
                word += '"'
            else:
                inside = not inside
            at += 1
            continue
        word += "\\" * slashes
        if at < len(seen):
            if seen[at] == " " and not inside:
                words.append(word)
                word = ""
            else:
                word += seen[at]
            at += 1
    return [*words, word]


ALL = "".join(map(chr, range(32, 127)))


@pytest.mark.parametrize(
    "word",
    ["plain", "p w", '"', '""', '\\"', "\\", "a\\", "%PATH%", "^", "a^b&del *", "a|b>c<d", "(x)", "!x!", "", ALL],
)
def test_a_program_gets_the_word_that_was_quoted(word: str) -> None:
    assert as_programs_read(as_cmd_reads(f"x {quoted(word)} /y")) == ["x", word, "/y"]


# --- remote desktop, file system, personality


def test_remote_desktop_is_closed_and_opened_again_when_setup_is_over() -> None:
    planned = plan("remote_desktop", image(control_set=2))
    (change,) = (a for a in planned if isinstance(a, SetRegistryValue))
    assert (change.key, change.name, change.value) == (
        r"ControlSet002\Control\Terminal Server",
        "fDenyTSConnections",
        1,
    )
    restore = written(planned, "Windows/SnfScripts/finish/50-remote-desktop.cmd")
    assert b"/v fDenyTSConnections /t REG_DWORD /d 0 /f" in restore


@pytest.mark.parametrize("denied", [1, None])
def test_remote_desktop_that_is_closed_stays_so(denied: int | None) -> None:
    with pytest.raises(Skipped):
        plan("remote_desktop", image(remote_desktop_denied=denied))


def test_a_hive_with_changes_in_its_log_is_left_alone() -> None:
    (warning,) = plan("remote_desktop", image(system_is_merged=False))
    assert isinstance(warning, Warn)


def test_ntfs_is_grown_here_only_if_that_is_asked_for() -> None:
    small = image()
    with pytest.raises(Skipped):
        plan("ntfs_grow", small)
    (grow,) = plan("ntfs_grow", small, ntfs_resize="offline-nocheck")
    assert isinstance(grow, GrowNtfs) and not grow.check
    with pytest.raises(Skipped):
        plan("windows_filesystem_grow", small, ntfs_resize="offline")
    assert b"extend filesystem" in written(
        plan("windows_filesystem_grow", small), "Windows/SnfScripts/specialize/20-extend-filesystem.cmd"
    )


def file(path: str) -> dict[str, object]:
    return {"files": [{"path": path, "contents": "aGk="}]}


def test_files_are_injected_with_the_folders_they_need() -> None:
    planned = plan("windows_personality", image(), **file("/ProgramData/x/y.txt"))
    assert written(planned, "ProgramData/x/y.txt") == b"hi"


@pytest.mark.parametrize("path", ["/a:b", "/con", "/x/NUL.txt", "/a\\b", "/a./b", "/a ", "/what?", "/Com1.log", '/"'])
def test_names_that_windows_cannot_have_are_refused(path: str) -> None:
    with pytest.raises(ImageError, match="Windows takes no file of the name"):
        plan("windows_personality", image(), **file(path))


# --- facts

FOUND: dict[str, object] = {
    "architecture": "AMD64",
    "control_set": 1,
    "current_version": "6.3",
    "image_state": windows.GENERALIZED,
    "major": 10,
    "minor": 0,
    "remote_desktop_denied": 0,
    "system_is_merged": True,
    "unattend_file": None,
    "users": {"Administrator": 500},
}


def test_windows_10_says_its_version_in_numbers_of_their_own() -> None:
    assert parse_facts(FOUND).version == (10, 0)
    assert parse_facts({**FOUND, "major": None}).version == (6, 3)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"major": None, "current_version": "5.1"}, "older than Vista"),
        ({"major": None, "current_version": "x" * 5000}, "gives its Windows the version"),
        ({"major": None, "current_version": None}, "gives its Windows the version"),
        ({"architecture": None}, "for the processor 'none'"),
        ({"architecture": "IA64"}, "for the processor 'ia64'"),
        ({"control_set": None}, "control set"),
        ({"control_set": 1000}, "control set"),
    ],
)
def test_a_registry_that_is_not_of_a_windows_that_we_know_is_refused(changed: dict[str, object], why: str) -> None:
    with pytest.raises(ImageError, match=why) as caught:
        parse_facts({**FOUND, **changed})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (r"C:\Windows\Panther\unattend.xml", PANTHER),
        (r"%WINDIR%\x\y.xml", "Windows/x/y.xml"),
        (r'"%SystemDrive%\a.xml"', "a.xml"),
        (r"D:\unattend.xml", PANTHER),
        (r"\\server\share\unattend.xml", PANTHER),
        (r"C:\..\..\etc\shadow", PANTHER),
        (r"C:\a\%EVIL%\b", PANTHER),
        (r"C:\a:b", PANTHER),
        ("C:\\", PANTHER),
        ("C:\\a\0b", PANTHER),
        ("C:\\\u00dcber\\unattend.xml", PANTHER),
        ('C:\\a" & echo x & "\\b', PANTHER),
        (r"C:\a*\b", PANTHER),
    ],
)
def test_where_the_registry_points_is_taken_only_on_the_system_drive(path: str, where: str) -> None:
    facts = dataclasses.replace(FACTS, unattend_file=path)
    assert target(facts) == RootPath(where)
    assert target(facts) in places(facts)
