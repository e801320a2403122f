"""What a guest says of itself, and the checks that are made of it: each check can fail."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from snf_lab.guest_facts import Expected, Seen, checks_table, is_machine_id, parse_seen, plan_checks
from snf_lab.guest_image import GuestFacts

from synnefo_light.errors import PeerError

CONTENT = b'Deployed, "as ordered" \\ by us.\n'
ANSWER = f"""\
hostname=demo
hostname_file=demo
own_name=127.0.1.1
machine_id=819aed960a9d4fbd9605d9ed8c3cdff4
user=root
root_bytes=4182769664
disk_bytes=4294967296
address=10.78.1.5/24
gateway=10.78.1.254
gateway_answers=yes
host_key=SHA256:new1
host_key=SHA256:new2
file_owner=www-data:adm
file_mode=640
file_content={base64.b64encode(CONTENT).decode()}
release=bookworm
"""
IMAGE = GuestFacts(
    release="bookworm",
    hostname="image",
    machine_id="0123456789abcdef0123456789abcdef",
    host_key_fingerprints=("SHA256:old1", "SHA256:old2"),
    disk_size=1280 << 20,
    used_bytes=1,
    root_uuid="x",
)
EXPECTED = Expected(
    hostname="demo",
    address="10.78.1.5",
    prefix=24,
    gateway="10.78.1.254",
    disk_size=4 << 30,
    file_owner="www-data:adm",
    file_mode=0o640,
    file_content=CONTENT,
)
GOOD = parse_seen(ANSWER)


def failed(seen: Seen, *, console: str = "root demo", presented: str = "SHA256:new1") -> list[str]:
    checks = plan_checks(seen, expected=EXPECTED, image=IMAGE, console_answer=console, presented_key=presented)
    return [check.claim for check in checks if not check.ok]


def test_an_answer_is_read_whole() -> None:
    assert GOOD.file_content == CONTENT
    assert GOOD.host_keys == ("SHA256:new1", "SHA256:new2")
    assert GOOD.file_mode == 0o640
    assert GOOD.gateway_answers is True


def test_all_checks_hold_for_a_guest_that_is_as_ordered() -> None:
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("seen", "claim"),
    [
        (replace(GOOD, hostname="image"), "it is called what the instance is called"),
        (replace(GOOD, own_name=""), "its name leads to itself"),
        (replace(GOOD, user="nobody"), "the key opens SSH"),
        (replace(GOOD, root_bytes=1280 << 20), "the root fills the disk"),
        (replace(GOOD, disk_bytes=8 << 30), "the root fills the disk"),
        (replace(GOOD, machine_id=IMAGE.machine_id), "the machine-id is its own"),
        (replace(GOOD, machine_id="uninitialized"), "the machine-id is its own"),
        (replace(GOOD, host_keys=("SHA256:new1", "SHA256:old2")), "the SSH host keys are its own"),
        (replace(GOOD, file_content=b""), "the injected file has its content"),
        (replace(GOOD, file_owner="root:root"), "... and its owner"),
        (replace(GOOD, file_mode=0o644), "... and its mode"),
        (replace(GOOD, address="10.78.1.6/24"), "the card has the address of the pool"),
        (replace(GOOD, gateway=""), "the gateway is the network's"),
        (replace(GOOD, gateway_answers=False), "... and answers"),
        (replace(GOOD, release="trixie"), "it runs the image's release"),
    ],
)
def test_each_check_fails_for_the_guest_that_breaks_it(seen: Seen, claim: str) -> None:
    assert failed(seen) == [claim]


def test_checks_from_outside_fail_too() -> None:
    assert failed(GOOD, console="root image") == ["the password opens the serial console"]
    assert failed(GOOD, presented="SHA256:old1") == ["sshd answers with one of them"]


def test_a_guest_without_host_keys_does_not_pass() -> None:
    assert "the SSH host keys are its own" in failed(replace(GOOD, host_keys=()))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ANSWER.replace("hostname=demo\n", ""), "did not say its hostname"),
        (ANSWER + "user=root\n", "no answer"),
        (ANSWER + "more=1\n", "no answer"),
        ("bash: no such thing\n" + ANSWER, "no answer"),
        (ANSWER.replace("4294967296", "big"), "not a number"),
        (ANSWER.replace("file_mode=640", "file_mode=9"), "not a number"),
        (ANSWER.replace("file_content=", "file_content=!"), "not base64"),
    ],
)
def test_an_answer_out_of_shape_is_refused(answer: str, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        parse_seen(answer)


def test_a_missing_file_is_a_failed_check_and_no_crash() -> None:
    gone = ANSWER.replace("file_owner=www-data:adm", "file_owner=").replace("file_mode=640", "file_mode=")
    assert failed(parse_seen(gone)) == ["... and its owner", "... and its mode"]


def test_the_table_says_what_was_expected_only_where_it_was_not_seen() -> None:
    seen = replace(GOOD, hostname="image")
    checks = plan_checks(seen, expected=EXPECTED, image=IMAGE, console_answer="root demo", presented_key="SHA256:new1")
    rows = checks_table(checks)
    assert rows[0] == ("FAILED", "it is called what the instance is called", "image; not demo")
    assert rows[3] == ("ok", "the key opens SSH", "root")


@pytest.mark.parametrize("text", ["", "0" * 32, "x" * 32, "0123", "uninitialized"])
def test_what_is_no_machine_id(text: str) -> None:
    assert not is_machine_id(text)
