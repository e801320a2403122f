"""What users choose can neither keep an event from being told nor break it."""

from __future__ import annotations

import pytest
from snf_hooks.document import to_bytes
from snf_hooks.environment import Hook, HookError, clean
from snf_hooks.views import OPTIONS

from synnefo_light.changes import InstanceChange
from synnefo_light.events import LIMIT, from_json
from tests.hook_environments import NIC_A, document, environment, event, instance, nic

HOSTILE = [
    '"}],"x":"',
    "\x1b[2J\x07",
    "a\nGANETI_MASTER=x",
    "\u202egpj.exe",
    "\udcff\udc80",
    "\\u0000",
    "=" * 70_000,
    "'; rm",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: ascii(t[:12]))
def test_names_of_nics_and_disks_and_tags_are_told_whatever_they_are(text: str) -> None:
    given = instance(INSTANCE_DISK0_NAME=text, INSTANCE_TAGS=text, **nic(0, NIC_A, NAME=text, NETWORK_NAME=text))
    detail = event(environment("instance-add", "post", given)).detail
    assert isinstance(detail, InstanceChange) and detail.after is not None and detail.after.nics is not None
    told = (detail.after.nics[0].name, detail.after.nics[0].network, detail.after.disks[0].name, *detail.after.tags)
    assert all(value.isprintable() and 0 < len(value) < 300 for value in told)


def test_as_many_tags_as_ganeti_allows_do_not_make_an_event_too_long_nor_go_unsaid() -> None:
    tags = [f"{n:04d}{'t' * 124}" for n in range(1000)]
    before, after = (
        instance(INSTANCE_TAGS=" ".join(tags)),
        instance(INSTANCE_TAGS=" ".join(tags[1:]), INSTANCE_STATUS="down"),
    )
    raw = to_bytes(document(environment("instance-stop", "post", before, after)))
    detail = from_json(raw).detail
    assert len(raw) <= LIMIT and isinstance(detail, InstanceChange)
    assert detail.left_out == ("tags",) and [c.kind for c in detail.changes] == ["status"]


def test_what_is_too_long_without_tags_loses_before_and_then_after() -> None:
    wide = {f"INSTANCE_HV_{key}": "x" * 250 for key in ("vga", "soundhw", "keymap", "cpu_mask")}
    nics = {k: v for n in range(40) for k, v in nic(n, f"{n:08d}", NAME="\x1b" * 250, LINK="\x1b" * 250).items()}
    given = instance(INSTANCE_NIC_COUNT="40", **wide, **nics)
    raw = to_bytes(document(environment("instance-stop", "post", given)))
    detail = from_json(raw).detail
    assert len(raw) <= LIMIT and isinstance(detail, InstanceChange)
    assert detail.left_out == ("tags", "before", "after") and detail.instance == "web1"


def test_what_is_too_long_without_all_that_loses_its_options_too() -> None:
    given = instance(**{**dict.fromkeys(OPTIONS, "\U000e0001" * 300), "DISK": "0"})
    raw = to_bytes(document(environment("instance-stop", "post", given)))
    detail = from_json(raw).detail
    assert len(raw) <= LIMIT and isinstance(detail, InstanceChange)
    assert detail.left_out == ("tags", "before", "after", "options") and detail.options == {}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOOKS_VERSION", "3"),
        ("HOOKS_PATH", "../x"),
        ("HOOKS_PATH", "watcher"),
        ("HOOKS_PHASE", "during"),
        ("HOOKS_PHASE", ""),
    ],
)
def test_a_hook_that_is_not_known_is_refused(variable: str, value: str) -> None:
    with pytest.raises(HookError, match=variable):
        Hook({**environment("instance-add", "pre", instance()), f"GANETI_{variable}": value})
    with pytest.raises(HookError, match="HOOKS_VERSION"):
        Hook({})


def test_a_phase_that_a_hook_does_not_have_is_refused() -> None:
    with pytest.raises(HookError, match="which cluster-verify does not have"):
        Hook(environment("cluster-verify", "pre", {}))


def test_clean_text_is_printable_says_how_much_was_cut_and_leaves_the_rest_alone() -> None:
    assert clean("é ✓ plain") == "é ✓ plain"
    assert clean("a\x1b\udcff") == "a\\x1b\\udcff"
    assert clean("abcdef", 4) == "abcd[2 more]"
