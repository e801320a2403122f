"""Which accelerator: found out by booting, remembered for this boot and this helper. The QEMU is the fake one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from snf_image_host.accel import Choice, choose
from snf_image_host.journal import only_deployment
from snf_image_host.settings import load_settings
from snf_image_host.vm import find_image

from synnefo_light import __version__
from tests.real.snf_image_host.node import Fake

PRESENT = Path("/dev/null")  # in place of /dev/kvm: that it is there proves nothing, which is what is tested


def chosen(node: Fake, *, kvm: Path = PRESENT, again: bool = False) -> Choice:
    settings = load_settings(node.folder / "snf-image.toml")
    return choose(find_image(settings.helper_dir, version=__version__), settings, kvm=kvm, again=again)


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
def test_the_configuration_decides_when_it_says_so(node: Fake, accel: str) -> None:
    node.configure(accel=accel)
    done = node.command("accel")
    assert done.returncode == 0, done
    assert json.loads(done.stdout) == {"accel": accel, "reason": "the configuration says so (accel)"}


def test_without_dev_kvm_nothing_is_tried(node: Fake) -> None:
    node.configure(accel="auto")
    node.behave("hang")
    begun = time.monotonic()
    assert chosen(node, kvm=node.folder / "absent").accel == "tcg"
    assert time.monotonic() - begun < 1
    assert not (node.folder / "run" / ".accel.json").exists()


def test_a_helper_that_says_hello_means_kvm_and_is_asked_once_a_boot(node: Fake) -> None:
    node.configure(accel="auto")
    assert chosen(node).accel == "kvm"
    node.behave("early-exit")
    assert chosen(node).accel == "kvm", "the answer is remembered"
    known = node.folder / "run" / ".accel.json"
    known.write_text(known.read_text().replace('"boot":"', '"boot":"another'))
    assert chosen(node).accel == "tcg", "the answer of another boot is not"


def test_another_helper_is_tried_anew(node: Fake) -> None:
    node.configure(accel="auto")
    assert chosen(node).accel == "kvm"
    node.behave("early-exit")
    known = node.folder / "run" / ".accel.json"
    known.write_text(known.read_text().replace(f'"helper":"{__version__}"', '"helper":"0.0.1"'))
    assert chosen(node).accel == "tcg"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("hang", "within 8 s"), ("early-exit", "no such machine"), ("garbage", "broke its protocol")],
)
def test_a_helper_that_does_not_say_hello_means_tcg(node: Fake, behaviour: str, reason: str) -> None:
    node.configure(accel="auto")
    node.behave(behaviour)
    begun = time.monotonic()
    choice = chosen(node)
    assert choice.accel == "tcg" and reason in choice.reason
    assert time.monotonic() - begun < 12
    assert node.alive() == []


def test_a_cache_that_is_damaged_is_made_anew(node: Fake) -> None:
    node.configure(accel="auto")
    (node.folder / "run" / ".accel.json").write_text("{")
    assert chosen(node).accel == "kvm"


def test_an_instance_named_accel_does_not_meet_the_probes_files(node: Fake) -> None:
    node.configure(accel="auto")
    with only_deployment(node.folder / "run", "accel"):
        assert chosen(node).accel == "kvm"
    assert {p.name for p in (node.folder / "run").iterdir()} == {"accel.lock", ".accel.lock", ".accel.json"}


def test_asked_again_it_is_tried_anew_and_the_new_answer_is_kept(node: Fake) -> None:
    node.configure(accel="auto")
    node.behave("early-exit")
    assert chosen(node).accel == "tcg"
    node.behave("good")
    assert chosen(node).accel == "tcg", "the answer is remembered"
    assert chosen(node, again=True).accel == "kvm"
    assert chosen(node).accel == "kvm"


def test_the_command_takes_again(node: Fake) -> None:
    node.configure(accel="tcg")
    done = node.command("accel", "--again")
    assert done.returncode == 0 and json.loads(done.stdout)["accel"] == "tcg", done
