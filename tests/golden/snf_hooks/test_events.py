"""Whole events, word by word: what readers of the spool are given. SNF_GOLDEN=write renews the files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.hook_environments import NIC_A, NIC_B, document, environment, instance, nic

HERE = Path(__file__).parent
CASES = {
    "instance-add-pre": (environment("instance-add", "pre", instance(INSTANCE_STATUS="True", ADD_MODE="create")), None),
    "instance-modify-post": (
        environment("instance-modify", "post", instance(INSTANCE_NIC_COUNT="2", **nic(1, NIC_B, IP="10.0.0.7"))),
        {"INSTANCE_NIC_COUNT": "1", **nic(0, NIC_A)},
    ),
    "disk-grow-pre": (environment("disk-grow", "pre", instance(DISK="0", AMOUNT="512", ABSOLUTE="False")), None),
    "network-connect-post": (
        environment("network-connect", "post", {"GROUP_NAME": "g1", "GROUP_NETWORK_MODE": "bridged"}),
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_event_of_a_hook_is_as_written_down(name: str) -> None:
    environ, remembered = CASES[name]
    text = json.dumps(document(environ, remembered=remembered), indent=1, sort_keys=True) + "\n"
    golden = HERE / f"event-{name}.json"
    if os.environ.get("SNF_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
