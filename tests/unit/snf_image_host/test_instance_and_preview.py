"""An instance from the words of a command line, and what would be done to it, without its secrets."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import pytest
from snf_image_host import instance
from snf_image_host.accel import Choice
from snf_image_host.params import parse_parameters
from snf_image_host.plan import plan_manifest
from snf_image_host.preview import Preview, preview, render
from snf_image_host.settings import Settings
from snf_image_host.vm import HelperImage

from synnefo_light.errors import UserError
from synnefo_light.ganeti import OsEnv
from synnefo_light.manifest import Compression, Source, SourceFormat
from synnefo_light.records import dump_json
from tests.task_list import NAMES, ORDER

HELPER = HelperImage(folder=Path("/nonexistent"), version="1", tasks=ORDER)
GIVEN = ("-O", "img_id=x.raw", "-O", "img_format=diskdump")


def environment(*words: str) -> OsEnv:
    parser = argparse.ArgumentParser()
    instance.add_arguments(parser)
    return instance.environment(parser.parse_args(words), [instance.Disk(path=Path("/disk"), size=1 << 30)])


def test_words_become_what_ganeti_would_have_said() -> None:
    env = environment("--hostname", "web1", "--nic", "ip=192.0.2.5,subnet=192.0.2.0/24,tags=dhcp+mtu:1400", *GIVEN)
    assert (env.instance, env.variant, env.reinstall) == ("web1", "default", True)
    assert env.parameters == {"img_id": "x.raw", "img_format": "diskdump"}
    assert env.disks[0].path == Path("/disk") and env.disks[0].size == 1024
    (nic,) = env.nics
    assert (str(nic.ip), str(nic.subnet), nic.tags) == ("192.0.2.5", "192.0.2.0/24", ("dhcp", "mtu:1400"))


def test_a_value_may_hold_commas_and_equal_signs_and_newlines() -> None:
    env = environment("-O", 'img_properties={"SWAP": "b"}, x=1\n')
    assert env.parameters == {"img_properties": '{"SWAP": "b"}, x=1\n'}


def test_parameters_of_a_file_are_under_those_of_words(tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    path.write_text('{"img_passwd": "geheim", "img_id": "other", "img_properties": {"USERS": "root"}}')
    env = environment("--parameters", str(path), *GIVEN)
    assert env.parameters == {
        "img_passwd": "geheim",
        "img_id": "x.raw",
        "img_format": "diskdump",
        "img_properties": '{"USERS":"root"}',
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-O", "img_id"), "NAME=VALUE"),
        (("-O", "IMG_ID=x"), "lower case"),
        (("-O", "a b=x"), "NAME=VALUE"),
        (("-O", "img_id=x", "-O", "img_id=y"), "given twice"),
        (("--nic", "adress=1"), "the keys are mac, ip"),
        (("--nic", "ip=1.2.3"), "address for NIC 0"),
        (("--nic", "mac=xx"), "MAC"),
        (("--nic", "subnet=x"), "is not a network"),
        (("--hostname", "a b"), "--hostname is 'a b'"),
        (("--hostname", "\udcff"), "--hostname is"),
        (("--parameters", "/nonexistent"), "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_that_were_given(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        environment(*words)


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1.5}'])
def test_a_file_of_parameters_that_is_none_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "given.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"given\.json"):
        environment("--parameters", str(path))


def previewed(**given: str) -> Preview:
    both = {"img_id": "x.raw", "img_format": "diskdump", **given}
    env = dataclasses.replace(environment(), parameters=both)
    parameters = parse_parameters(both, tasks=ORDER)
    source = Source(format=parameters.source_format, compression=parameters.compression, size=5)
    manifest = plan_manifest(
        env,
        parameters,
        Settings(),
        sizes=(1 << 30,),
        image=HELPER,
        nonce="0" * 32,
        source=source if parameters.converts else None,
        answer_file=b"geheim" if "os_answer_file" in given else None,
    )
    choice = Choice(accel="tcg", reason="because") if manifest else None
    sizes = (1 << 30,)
    return preview(env, parameters, Settings(), HELPER, size=5, sizes=sizes, manifest=manifest, choice=choice)


def due(shown: Preview) -> set[str]:
    return {task.name for task in shown.tasks if task.due}


def test_every_task_stands_there_in_order_and_says_why_it_is_not_due() -> None:
    shown = previewed(img_properties='{"EXCLUDE_TASK_ADDSWAP": "yes", "OSFAMILY": "linux", "CLOUD_INIT": "yes"}')
    assert [task.name for task in shown.tasks] == list(NAMES)
    why = {task.name: task.why for task in shown.tasks}
    assert why["convert"] == "there is nothing to convert"
    assert why["swap"].startswith("left out by a property (EXCLUDE_TASK_ADDSWAP")
    assert why["seed"] == "not for linux"
    assert why["partition_table"] == "cloud-init does it in the instance"
    assert why["personality"] == "" and "personality" in due(shown)


def test_a_conversion_is_due_and_takes_longer() -> None:
    copied, converted = previewed(), previewed(img_source_format="qcow2", img_compression="none")
    assert "convert" in due(converted) - due(copied)
    assert converted.limit_s == (copied.limit_s or 0) + Settings().convert_limit_s
    assert converted.way == "converted from qcow2 onto disk 0, inside the helper VM"
    assert SourceFormat.QCOW2.value in str(converted.manifest) and Compression.NONE.value in str(converted.manifest)


def test_without_a_helper_vm_nothing_is_due_and_nothing_is_promised() -> None:
    shown = previewed(img_properties='{"EXCLUDE_ALL_TASKS": "yes"}')
    assert due(shown) == set() and shown.helper is shown.accel is shown.manifest is None
    assert any("no helper VM is started" in line for line in render(shown))


def test_no_secret_is_shown_to_people_or_programs() -> None:
    hidden = "geheim"
    common = {"os_answer_file": "http://192.0.2.1/x?key=geheim", "auth_keys": "ssh-ed25519 AAAA public"}
    clear = previewed(
        img_passwd=hidden,
        os_product_key="GEHEI-MGEHE-IMGEH-EIMGE-HEIMG",
        img_personality='[{"path": "/x", "contents": "Z2VoZWlt"}]',
        img_properties='{"CUSTOM_TASK": "Z2VoZWlt"}',
        **common,
    )
    cloud = previewed(
        img_passwd_hash="$6$geheim", cloud_userdata="Z2VoZWlt", img_properties='{"CLOUD_INIT": "yes"}', **common
    )
    for shown in (clear, cloud):
        text = dump_json(shown).decode() + "\n".join(render(shown))
        assert "geheim" not in text.lower() and "Z2VoZWlt" not in text and "MGEHE" not in text
        assert "***" in text and "ssh-ed25519 AAAA public" in text
        json.loads(dump_json(shown))
