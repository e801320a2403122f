from __future__ import annotations

import json

import pytest
from snf_image_host.properties import PROPERTIES, Properties, parse_properties, read_properties, unknown_names

from synnefo_light.manifest import Swap
from synnefo_light.tasks import OsFamily, Phase, TaskInfo
from tests.task_list import ORDER


def parsed(**given: object) -> Properties:
    found = read_properties(json.dumps(given))
    if strangers := unknown_names(found):
        raise ValueError(strangers[0])
    return parse_properties(found, ORDER)


def refusal(**given: object) -> str:
    with pytest.raises(ValueError) as caught:
        parsed(**given)
    return str(caught.value)


@pytest.mark.parametrize("word", ["yes", "TRUE", "1", "on", "Set", True, 1])
def test_snf_images_words_for_yes(word: object) -> None:
    assert parsed(exclude_all_tasks=word).skip == {t.name for t in ORDER if t.phase is not Phase.SOURCE}


@pytest.mark.parametrize("word", ["no", "False", "0", "OFF", "unset", False, 0])
def test_snf_images_words_for_no(word: object) -> None:
    assert parsed(exclude_all_tasks=word).skip == frozenset()


@pytest.mark.parametrize("word", ["perhaps", "", "y", "2", "nein"])
def test_any_other_word_is_an_error(word: str) -> None:
    assert refusal(EXCLUDE_ALL_TASKS=word) == f"EXCLUDE_ALL_TASKS is {word!r}, which is neither yes nor no"


@pytest.mark.parametrize(
    ("ours", "theirs"), [(t.name, t.snf_image) for t in ORDER if t.name not in ("mount", "umount") and t.snf_image]
)
def test_each_task_is_left_out_under_snf_images_name(ours: str, theirs: str) -> None:
    named_so = {task.name for task in ORDER if task.snf_image == theirs}
    assert ours in named_so
    assert parsed(**{f"EXCLUDE_TASK_{theirs}": "yes"}).skip == named_so
    assert parsed(**{f"exclude_task_{theirs.lower()}": "yes"}).skip == named_so


def test_groups_of_tasks() -> None:
    mounted = {t.name for t in ORDER if t.phase is Phase.MOUNTED} | {"mount", "umount"}
    assert parsed(EXCLUDE_MOUNTED_TASKS="yes").skip >= mounted
    assert parsed(EXCLUDE_MOUNTED_TASKS="yes").skip.isdisjoint({"partition_table", "filesystem_check_grow"})
    assert "filesystem_check_grow" in parsed(EXCLUDE_FILESYSTEMRESIZE_TASKS="yes").skip
    assert "partition_table" not in parsed(EXCLUDE_FILESYSTEMRESIZE_TASKS="yes").skip
    assert parsed(EXCLUDE_MOUNTED_TASKS="no", EXCLUDE_TASK_AddSwap="yes").skip == {"swap"}


def test_the_mount_alone_cannot_be_left_out() -> None:
    assert "EXCLUDE_MOUNTED_TASKS" in refusal(EXCLUDE_TASK_MountImage="yes")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"COLOUR": "red"}, "the property 'COLOUR' is not known"),
        ({"ROOT_PARTITON": 1}, "the property 'ROOT_PARTITON' is not known; did you mean ROOT_PARTITION?"),
        ({"EXCLUDE_TASK_Paint": "yes"}, "the task 'PAINT' is not known"),
        (
            {"EXCLUDE_TASK_AddSwop": "yes"},
            "the task 'ADDSWOP' is not known; did you mean EXCLUDE_TASK_ADDSWAP?",
        ),
        ({"OSFAMILY": "beos"}, "OSFAMILY is 'beos', the families are linux, windows, "),
        ({"ROOT_PARTITION": "0"}, "ROOT_PARTITION is '0', which is not a number from 1 to 128"),
        ({"ROOT_PARTITION": "¹"}, "ROOT_PARTITION is '¹', which is not a number from 1 to 128"),
        ({"USERS": " "}, "USERS is empty; name a user, or leave it out for root"),
        ({"PASSWD_HASHING_METHOD": "rot13"}, "PASSWD_HASHING_METHOD is 'rot13', the methods are "),
        ({"SWAP": "a"}, "SWAP is 'a', which is neither PARTITION:MiB, a disk from b to p, nor file:MiB"),
        ({"SWAP": "file:0"}, "SWAP's size is '0', which is not a number from 1 to 1048576"),
        ({"SWAP": "file"}, "SWAP is 'file', which is neither PARTITION:MiB, a disk from b to p, nor file:MiB"),
        ({"SWAP": "2:"}, "SWAP's size is '', which is not a number from 1 to 1048576"),
        ({"SWAP": "x:1"}, "SWAP's partition is 'x', which is not a number from 1 to 128"),
        ({"CUSTOM_TASK": "!"}, "CUSTOM_TASK is not base64; encode the program with base64(1)"),
        ({"CUSTOM_TASK": "QUFB" * 43691}, "CUSTOM_TASK has 131073 bytes, at most 131072 are accepted"),
        ({"ALLOW_MOUNTED_TASK_OVERWRITING": "yes"}, "ALLOW_MOUNTED_TASK_OVERWRITING is not served: it runs programs "),
        ({"DO_SYNC": "perhaps"}, "DO_SYNC is 'perhaps', which is neither yes nor no"),
        ({"CLOUD_INIT": "maybe"}, "CLOUD_INIT is 'maybe', which is neither yes nor no"),
        ({"USERS": ["root"]}, "the value of USERS is neither text, a number nor true or false"),
        ({"users": "a", "USERS": "b"}, "the property USERS stands twice"),
        ({"A\x1b[2J": 1}, "the property 'A\\x1b[2J' is not known"),
    ],
)
def test_a_bad_property_is_refused_by_name(given: dict[str, object], sentence: str) -> None:
    said = refusal(**given)
    assert said == sentence if not sentence.endswith(" ") else said.startswith(sentence)


def test_what_is_said_no_to_changes_nothing() -> None:
    given = {p.name: "no" for p in PROPERTIES if p.kind == "boolean" and "<" not in p.name}
    assert parsed(CUSTOM_TASK="", **given) == Properties()


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"CLOUD_INIT": "yes"}, "cloud_init", True),
        ({"NM_NETWORKING": "on"}, "nm_networking", True),
        ({"IGNORE_UNATTEND": 1}, "ignore_unattend", True),
        ({"USE_DEFAULT_UNATTEND": True}, "ignore_unattend", True),
        ({"OFFLINE_NTFSRESIZE": "yes"}, "ntfs_resize", "offline"),
        ({"OFFLINE_NTFSRESIZE_NOCHECK": "yes"}, "ntfs_resize", "offline-nocheck"),
        ({"OFFLINE_NTFSRESIZE": "no", "OFFLINE_NTFSRESIZE_NOCHECK": "yes"}, "ntfs_resize", "offline-nocheck"),
        ({"CUSTOM_TASK": "IyEvYmlu\nL3NoCg=="}, "custom_task", "IyEvYmluL3NoCg=="),
        ({"USERS": "Guest", "OSFAMILY": "windows"}, "users", ("Guest",)),
        ({"OSFAMILY": "windows"}, "users", ("Administrator",)),
        ({"OSFAMILY": "freebsd"}, "users", ("root",)),
    ],
)
def test_each_property_is_an_order(given: dict[str, object], field: str, value: object) -> None:
    assert getattr(parsed(**given), field) == value


def test_the_task_that_writes_the_disk_is_never_left_out() -> None:
    convert = TaskInfo(name="convert", phase=Phase.SOURCE, summary="")
    tasks = (convert, *(task for task in ORDER if task.phase is not Phase.SOURCE))
    found = read_properties('{"EXCLUDE_ALL_TASKS": "yes"}')
    assert parse_properties(found, tasks).skip == {t.name for t in tasks} - {"convert"}
    with pytest.raises(ValueError, match="the image does not come onto the disk"):
        parse_properties({"EXCLUDE_TASK_CONVERT": "yes"}, tasks)


@pytest.mark.parametrize(("word", "meaning"), [("perhaps", True), ("", False)])
def test_without_strictness_words_are_read_as_snf_image_did(word: str, meaning: bool) -> None:
    found = parse_properties({"CLOUD_INIT": word}, ORDER, strict=False)
    assert found.cloud_init is meaning
    (sentence,) = found.warnings
    assert sentence.startswith(f"CLOUD_INIT is '{word}', which is neither yes nor no; it is taken as ")


def test_what_is_said_about_an_image_is_taken_and_means_nothing() -> None:
    assert parsed(DESCRIPTION="Debian 12", SORTORDER=3, kernel="6.1") == Properties()


def test_values() -> None:
    found = parsed(osfamily="Linux", root_partition=2, users="root admin", passwd_hashing_method="YESCRYPT")
    assert found == Properties(
        os_family=OsFamily.LINUX, root_partition=2, users=("root", "admin"), hashing="yescrypt", swap=None
    )


@pytest.mark.parametrize(
    ("text", "swap"),
    [
        ("b", Swap(disk=1)),
        ("C", Swap(disk=2)),
        ("2:512", Swap(partition=2, size_mib=512)),
        ("File:64", Swap(file_mib=64)),
    ],
)
def test_swap(text: str, swap: Swap) -> None:
    assert parsed(SWAP=text).swap == swap


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "{", '{"a": 1.5}', '{"USERS": NaN}', "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_properties(text)


def test_each_property_is_declared_once() -> None:
    names = [p.name for p in PROPERTIES]
    assert len(names) == len(set(names))
    assert all(name == name.upper() for name in names)
