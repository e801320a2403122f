from __future__ import annotations

import json

import pytest
from snf_image_host.properties import PROPERTIES, Properties, parse_properties, read_properties

from synnefo_light.manifest import Swap
from synnefo_light.tasks import OsFamily, Phase
from tests.task_list import NAMES, ORDER


def parsed(**given: object) -> Properties:
    return parse_properties(read_properties(json.dumps(given)), ORDER)


def refusal(**given: object) -> str:
    with pytest.raises(ValueError) as caught:
        parsed(**given)
    return str(caught.value)


@pytest.mark.parametrize("word", ["yes", "TRUE", "1", "on", "Set", True, 1])
def test_snf_images_words_for_yes(word: object) -> None:
    assert parsed(exclude_all_tasks=word).skip == set(NAMES)


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
    assert parsed(**{f"EXCLUDE_TASK_{theirs}": "yes"}).skip == {ours}
    assert parsed(**{f"exclude_task_{theirs.lower()}": "yes"}).skip == {ours}


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
        ({"SWAP": "a"}, "SWAP is 'a', which is neither PARTITION:MiB nor a disk from b to p"),
        ({"SWAP": "2:"}, "SWAP's size is '', which is not a number from 1 to 1048576"),
        ({"SWAP": "x:1"}, "SWAP's partition is 'x', which is not a number from 1 to 128"),
        ({"CLOUD_INIT": "yes"}, "CLOUD_INIT (write input for cloud-init instead of system files) comes later; "),
        ({"CUSTOM_TASK": "eA=="}, "CUSTOM_TASK (a script of the image's owner, run in the helper VM) comes later; "),
        ({"CLOUD_INIT": "maybe"}, "CLOUD_INIT is 'maybe', which is neither yes nor no"),
        ({"USERS": ["root"]}, "the value of USERS is neither text, a number nor true or false"),
        ({"users": "a", "USERS": "b"}, "the property USERS stands twice"),
        ({"A\x1b[2J": 1}, "the property 'A\\x1b[2J' is not known"),
    ],
)
def test_a_bad_property_is_refused_by_name(given: dict[str, object], sentence: str) -> None:
    said = refusal(**given)
    assert said == sentence if not sentence.endswith(" ") else said.startswith(sentence)


def test_what_comes_later_may_be_said_no_to() -> None:
    assert parsed(CLOUD_INIT="no", OFFLINE_NTFSRESIZE=False, CUSTOM_TASK="") == Properties()


def test_what_is_said_about_an_image_is_taken_and_means_nothing() -> None:
    assert parsed(DESCRIPTION="Debian 12", SORTORDER=3, kernel="6.1") == Properties()


def test_values() -> None:
    found = parsed(osfamily="Linux", root_partition=2, users="root admin", passwd_hashing_method="YESCRYPT")
    assert found == Properties(
        os_family=OsFamily.LINUX, root_partition=2, users=("root", "admin"), hashing="yescrypt", swap=None
    )


@pytest.mark.parametrize(
    ("text", "swap"), [("b", Swap(disk=1)), ("C", Swap(disk=2)), ("2:512", Swap(partition=2, size_mib=512))]
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
