"""What is said to Ganeti, and what the deployment's record says."""

from __future__ import annotations

import base64
import json

import pytest
from snf_lab.guest_deploy import (
    Order,
    describe_course,
    jobs_under_way,
    parse_figures,
    parse_fingerprint,
    plan_add,
    quote_value,
    render_parameters,
)

from synnefo_light.errors import PeerError

ORDER = Order(
    name="demo",
    image="debian-12.raw",
    disk_gib=4,
    password="a,b\\c",
    authorized_key="ssh-ed25519 AAAA lab, key",
    file_path="/srv/demo/welcome",
    file_content=b"hi",
    file_owner="www-data",
    file_group="adm",
    file_mode=0o640,
)


def as_ganeti_reads(text: str) -> dict[str, str]:
    """Key-values as Ganeti documents them: commas part, a backslash takes the next character as it is."""
    parts, part, rest = [], "", iter(text)
    for character in rest:
        if character == ",":
            parts.append(part)
            part = ""
        else:
            part += next(rest, "\\") if character == "\\" else character
    return dict(p.split("=", 1) for p in [*parts, part])


@pytest.mark.parametrize("value", ["", "plain", "a,b", "\\", "\\,", ",\\", "a\\\\,b,", '[{"a": 1, "b": "\\n"}]', "x=y"])
def test_a_value_arrives_as_it_was(value: str) -> None:
    assert as_ganeti_reads(render_parameters({"before": "1", "value": value, "after": "2"})) == {
        "before": "1",
        "value": value,
        "after": "2",
    }


def test_quoting_touches_commas_and_backslashes_alone() -> None:
    assert quote_value('a,b\\c "d" = {e}\nf') == 'a\\,b\\\\c "d" = {e}\nf'


def test_the_password_is_given_as_secret_and_nowhere_else() -> None:
    words = plan_add(ORDER, node="node1")
    assert as_ganeti_reads(words[words.index("--os-parameters-secret") + 1]) == {"img_passwd": ORDER.password}
    assert "img_passwd" not in words[words.index("-O") + 1]


def test_the_order_says_everything_that_is_checked_later() -> None:
    words = plan_add(ORDER, node="node1")
    public = as_ganeti_reads(words[words.index("-O") + 1])
    assert public["img_id"] == "debian-12.raw" and public["auth_keys"] == ORDER.authorized_key
    (file,) = json.loads(public["img_personality"])
    assert base64.b64decode(file["contents"]) == b"hi"
    assert (file["owner"], file["group"], file["mode"]) == ("www-data", "adm", 416)
    assert "0:size=4G" in words and words[-1] == "demo"


RECORD = {
    "type": "finished",
    "copied": 1,
    "copy_ms": 2,
    "accel": "tcg",
    "helper_ms": 3,
    "helper_boot_ms": 4,
    "helper_cpu_ms": 5,
    "helper_peak_rss": 6,
    "host_peak_rss": 7,
    "total_ms": 8,
    "at_ms": 9,
}


def test_figures_are_those_of_the_last_end() -> None:
    figures = parse_figures([{**RECORD, "helper_ms": 99}, {"type": "started"}, RECORD])
    assert (figures.helper_ms, figures.accel, figures.host_peak_rss) == (3, "tcg", 7)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "no `finished` line"),
        ([{"type": "failed"}], "no `finished` line"),
        ([{**RECORD, "helper_ms": "3"}], "helper_ms"),
        ([{k: v for k, v in RECORD.items() if k != "copy_ms"}], "copy_ms"),
    ],
)
def test_a_record_without_figures_is_refused(records: list[dict[str, object]], words: str) -> None:
    with pytest.raises(PeerError, match=words):
        parse_figures(records)


@pytest.mark.parametrize(
    ("record", "said", "fraction"),
    [
        ({"type": "copy-progressed", "done": 512 << 20, "total": 1 << 30}, "512 of 1024 MiB", 0.5),
        ({"type": "copy-progressed", "done": 1, "total": 0}, "", None),
        ({"type": "helper-started"}, "starting the helper VM", None),
        ({"type": "task-started", "task": "host\x1b[2Jname"}, "helper VM: host", None),
        ({"type": "finished"}, "starting the instance", None),
        ({"type": "new in a later version"}, "", None),
    ],
)
def test_the_course_of_a_deployment_in_words(record: dict[str, object], said: str, fraction: float | None) -> None:
    note, reached = describe_course([record])
    assert said in note and reached == fraction
    assert "\x1b" not in note


def test_a_fingerprint_is_found_behind_the_comment() -> None:
    shown = "# Host 10.78.1.5 found: line 1 \n10.78.1.5 ED25519 SHA256:abc \n"
    assert parse_fingerprint(shown) == "SHA256:abc"
    with pytest.raises(PeerError, match="no fingerprint"):
        parse_fingerprint("# Host 10.78.1.5 found: line 1 \n")


def test_jobs_of_a_killed_run_are_found_and_no_others() -> None:
    listed = (
        "7|success|INSTANCE_CREATE(demo)\n8|running|INSTANCE_CREATE(demo)\n9|queued|INSTANCE_REMOVE(demo)\n"
        "10|running|INSTANCE_CREATE(demo2)\n11|error|INSTANCE_STARTUP(demo)\n12|waiting|CLUSTER_VERIFY\n"
    )
    assert jobs_under_way(listed, instance="demo") == ("8", "9")
    assert jobs_under_way("", instance="demo") == ()
