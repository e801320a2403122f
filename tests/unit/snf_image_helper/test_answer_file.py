"""Answer files: what is taken, what is refused, and what becomes of them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from snf_image_helper import answer_file
from snf_image_helper.answer_file import DEPLOYMENT, SHELL, AnswerFile, AnswerFileError, parse, text_of

NS = answer_file.NAMESPACE
COMPONENT = f'<component name="{SHELL}" processorArchitecture="%s" publicKeyToken="31bf3856ad364e35">%s</component>'


def document(*settings: str, root: str = "unattend", namespace: str = NS, before: str = "") -> bytes:
    inside = "".join(settings)
    return f'<?xml version="1.0" encoding="utf-8"?>{before}<{root} xmlns="{namespace}">{inside}</{root}>'.encode()


def specialize(*components: str, more: str = "") -> str:
    return f'<settings pass="specialize"{more}>{"".join(components)}</settings>'


def again(answers: AnswerFile) -> AnswerFile:
    return parse(answers.render(), "amd64")


def test_a_setting_is_changed_where_it_is_and_the_rest_stays() -> None:
    inside = "<ComputerName>old</ComputerName><RegisteredOwner>me &amp; you</RegisteredOwner>"
    answers = parse(document(specialize(COMPONENT % ("amd64", inside))), "amd64")
    answers.set("specialize", SHELL, "ComputerName", "web1")
    assert again(answers).get("specialize", SHELL, "ComputerName") == "web1"
    assert again(answers).get("specialize", SHELL, "RegisteredOwner") == "me & you"
    assert answers.render().count(b"<component") == 1


def test_components_for_another_processor_are_left_alone() -> None:
    answers = parse(document(specialize(COMPONENT % ("x86", "<ComputerName>old</ComputerName>"))), "amd64")
    answers.set("specialize", SHELL, "ComputerName", "web1")
    text = answers.render().decode()
    assert "<ComputerName>old</ComputerName>" in text and "<ComputerName>web1</ComputerName>" in text


def test_settings_of_an_installation_of_the_past_do_not_happen_again() -> None:
    done = specialize(COMPONENT % ("amd64", "<ComputerName>old</ComputerName>"), more=' wasPassProcessed="true"')
    answers = parse(document(done), "amd64")
    assert answers.is_spent
    assert b"old" not in answers.render()
    assert not parse(document(specialize()), "amd64").is_spent


def test_a_command_is_added_once_behind_those_that_are_there() -> None:
    inside = (
        "<RunSynchronous><RunSynchronousCommand><Order>7</Order><Path>a.exe</Path></RunSynchronousCommand>"
        "</RunSynchronous>"
    )
    component = (COMPONENT % ("amd64", inside)).replace(SHELL, DEPLOYMENT)
    answers = parse(document(specialize(component)), "amd64")
    answers.run_synchronously("b.exe", "ours")
    first = answers.render()
    answers.run_synchronously("b.exe", "ours")
    assert answers.render() == first
    commands = answer_file.items(answers.component("specialize", DEPLOYMENT), "RunSynchronous/RunSynchronousCommand")
    assert [(text_of(c, "Order"), text_of(c, "Path")) for c in commands] == [("7", "a.exe"), ("8", "b.exe")]
    assert commands[1].get(f"{{{answer_file.WCM}}}action") == "add"


@pytest.mark.parametrize("order", ["", "-1", "99999999999999999999", "٣", "x"])
def test_an_order_that_is_no_number_does_not_count(order: str) -> None:
    inside = f"<RunSynchronous><RunSynchronousCommand><Order>{order}</Order></RunSynchronousCommand></RunSynchronous>"
    component = (COMPONENT % ("amd64", inside)).replace(SHELL, DEPLOYMENT)
    answers = parse(document(specialize(component)), "amd64")
    answers.run_synchronously("b.exe", "ours")
    assert b"<Order>1</Order>" in answers.render()


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/shadow">]>'


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (document(before=BOMB), "DOCTYPE"),
        (document(before=OUTSIDE), "DOCTYPE"),
        (document(before=BOMB).decode().replace("utf-8", "utf-16").encode("utf-16"), "DOCTYPE"),
        (document(before="<!DOCTYPE unattend>").decode().encode("utf-16"), "not XML"),
        (b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "http://192.0.2.1/x.dtd"><x/>', "DOCTYPE"),
        (document(root="html"), "outermost element"),
        (document(namespace="urn:other"), "outermost element"),
        (document("<a>" * 40, "</a>" * 40), "nested deeper"),
        (document("<a/>" * 20_001), "more than 20000 elements"),
        (b" " * ((1 << 20) + 1), "at most 1048576"),
        (b"", "not XML"),
        (b"<unattend", "not XML"),
        (b'<?xml version="1.0" encoding="utf-7"?><unattend/>', "not XML"),
        (b"\0" * 100, "not XML"),
        (document('<wcm:a xmlns:wcm=""/>'), "not XML"),
        (document("<other:a/>"), "unbound prefix"),
    ],
)
def test_what_is_no_plain_answer_file_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(AnswerFileError, match=why):
        parse(raw, "amd64")


def test_utf_16_is_read_too_and_written_as_utf_8() -> None:
    text = document(specialize(COMPONENT % ("amd64", "<RegisteredOwner>Ünal</RegisteredOwner>"))).decode()
    answers = parse(text.replace("utf-8", "utf-16").encode("utf-16"), "amd64")
    assert "Ünal".encode() in answers.render()


@pytest.mark.parametrize("version", [(6, 0), (6, 1), (6, 2), (10, 0)])
def test_ours_names_only_what_that_windows_knows(version: tuple[int, int]) -> None:
    text = answer_file.default("amd64", version, "GMT Standard Time").render().decode()
    assert ("HideOnlineAccountScreens" in text) is (version >= (6, 2))
    assert ("NetworkLocation" in text) is (version < (6, 2))
    assert "<TimeZone>GMT Standard Time</TimeZone>" in text
    assert ElementTree.fromstring(text.encode()).tag == f"{{{NS}}}unattend"


def test_rendering_twice_gives_the_same_bytes() -> None:
    answers = answer_file.default("amd64", (10, 0), "UTC")
    once = answers.render()
    assert answers.render() == once == again(answers).render()


def test_control_characters_are_no_text_of_xml() -> None:
    with pytest.raises(ValueError, match="control characters"):
        answer_file.default("amd64", (10, 0), "UTC").set("specialize", SHELL, "ComputerName", "a\x01b")
