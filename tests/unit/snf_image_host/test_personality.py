from __future__ import annotations

import json

import pytest
from snf_image_host.personality import parse_personality

from synnefo_light.manifest import InjectedFile

HI = {"path": "/etc/motd", "contents": "aGk="}


def test_a_file_with_defaults() -> None:
    assert parse_personality(json.dumps([HI])) == (
        InjectedFile(path="/etc/motd", contents="aGk=", owner="root", group="root", mode=0o440),
    )


def test_a_file_with_everything_and_wrapped_base64() -> None:
    given = [HI | {"contents": "a\nGk\r\n=", "owner": "user", "group": "adm", "mode": 416}]
    (file,) = parse_personality(json.dumps(given))
    assert (file.contents, file.owner, file.group, file.mode) == ("aGk=", "user", "adm", 0o640)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"path": "etc/motd"}, "entry 0: path 'etc/motd' is not absolute"),
        ({"path": "/../a"}, "entry 0: path '/../a' must not contain '..'"),
        ({"path": "/etc/"}, "entry 0: path '/etc/' names a folder, not a file"),
        ({"path": 1}, "entry 0.path: 1 is not a string"),
        ({"contents": "aGk"}, "entry 0: the contents of '/etc/motd' are not base64"),
        ({"contents": "ä"}, "entry 0: the contents of '/etc/motd' are not base64"),
        ({"mode": "0640"}, "entry 0.mode: '0640' is not a whole number"),
        ({"mode": 4096}, "entry 0: mode 4096 is not within 0 to 4095 (octal 7777)"),
        ({"path": "/etc/."}, "entry 0: path '/etc/.' names a folder, not a file"),
        ({"path": "/a/" + "ä" * 128}, "entry 0: a name in the path "),
        ({"path": "/\ud800"}, "the document has half a surrogate pair "),
        ({"owner": "4294967295"}, "entry 0: the number 4294967295 of an owner or group is over 4294967294"),
        ({"group": "4294967295"}, "entry 0: the number 4294967295 of an owner or group is over 4294967294"),
        ({"owner": "a:b"}, "entry 0: 'a:b' is not a user or group name"),
        (
            {"colour": "red"},
            "entry 0.colour: this key is not known; the keys here are contents, group, mode, owner, path",
        ),
    ],
)
def test_a_bad_entry_is_refused_by_its_number_and_key(changed: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_personality(json.dumps([HI | changed]))
    assert str(caught.value) == named if not named.endswith(" ") else str(caught.value).startswith(named)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"entry 0\.contents: this key is missing"):
        parse_personality('[{"path": "/a"}]')


@pytest.mark.parametrize("text", ["{}", "1", "[1]", "[", '[{"path": "/a", "contents": "", "path": "/b"}]'])
def test_what_is_no_array_of_objects_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_personality(text)


def test_two_files_of_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="entry 1: the path '/etc/motd' stands twice"):
        parse_personality(json.dumps([HI, HI]))


def test_too_many_files_are_refused() -> None:
    with pytest.raises(ValueError, match="1001 files, at most 1000"):
        parse_personality(json.dumps([{"path": f"/{n}", "contents": ""} for n in range(1001)]))


def test_what_is_just_within_the_limits_is_taken() -> None:
    (file,) = parse_personality(json.dumps([HI | {"path": "/a/" + "x" * 255, "owner": "4294967294"}]))
    assert file.owner == "4294967294"


def test_paths_are_normalised() -> None:
    (file,) = parse_personality(json.dumps([HI | {"path": "//etc/.//ssh/./x"}]))
    assert file.path == "/etc/ssh/x"


@pytest.mark.parametrize("again", ["/etc/motd", "//etc/motd", "/etc/./motd", "/etc//motd"])
def test_the_same_file_twice_is_refused_in_any_spelling(again: str) -> None:
    with pytest.raises(ValueError, match="entry 1: the path '/etc/motd' stands twice"):
        parse_personality(json.dumps([HI, HI | {"path": again}]))
