"""What cloud-init is given, and what is left to it."""

from __future__ import annotations

import base64
import json

import pytest
from snf_image_helper.actions import Action, RemoveFile, WriteFile
from snf_image_helper.cloud_config import cloud_init_version, render_cloud_config
from snf_image_helper.deployment import must_apply
from snf_image_helper.image import ImageError, RootPath, Skipped
from snf_image_helper.tasks import TASKS

from synnefo_light.tasks import OsFamily
from tests.guests.trees import DEBIAN_12, FEDORA_41, UBUNTU_24, Tree
from tests.unit.snf_image_helper.fake_image import NONCE, fake_image, manifest

SEED = "/var/lib/cloud/seed/nocloud"
NIC = {"mac": "aa:00:00:00:00:01", "ipv4": "dhcp"}
ASKED: dict[str, object] = {
    "cloud_init": {},
    "nics": [NIC],
    "users": ["root", "ubuntu"],
    "passwords": [{"user": "root", "hashed": "$6$salt$hash"}],
    "authorized_keys": "# mine\nssh-ed25519 A me\n",
}


def planned(tree: Tree, **fields: object) -> list[Action]:
    return list(TASKS["cloud_init"].plan(fake_image(tree), manifest(**ASKED | fields)))


def written(actions: list[Action]) -> dict[str, bytes]:
    return {str(a.path): a.content for a in actions if isinstance(a, WriteFile)}


def config(data: bytes) -> dict[str, object]:
    first, _, rest = data.decode().partition("\n")
    assert first == "#cloud-config"
    found = json.loads(rest)
    assert isinstance(found, dict)
    return found


def test_the_seed_is_whole_and_secret() -> None:
    actions = planned(UBUNTU_24)
    files = written(actions)
    assert list(files) == [
        *(f"{SEED}/{name}" for name in ("meta-data", "user-data", "vendor-data", "network-config")),
        "/etc/cloud/cloud.cfg.d/99-snf-image.cfg",
        "/etc/cloud/ds-identify.cfg",
    ]
    assert all(a.mode == 0o600 for a in actions if isinstance(a, WriteFile) and a.path.startswith(SEED))
    assert json.loads(files[f"{SEED}/meta-data"]) == {
        "instance-id": f"web1.example.org-{NONCE[:12]}",
        "local-hostname": "web1.example.org",
    }
    assert config(files[f"{SEED}/vendor-data"]) == {
        "preserve_hostname": False,
        "manage_etc_hosts": "localhost",
        "ssh_deletekeys": True,
        "disable_root": False,
        "users": [
            "default",
            {"name": "root", "lock_passwd": False, "ssh_authorized_keys": ["ssh-ed25519 A me"]},
            {"name": "ubuntu", "lock_passwd": False, "ssh_authorized_keys": ["ssh-ed25519 A me"]},
        ],
        "ssh_pwauth": True,
        "chpasswd": {"expire": False, "users": [{"name": "root", "password": "$6$salt$hash", "type": "hash"}]},
    }


def test_what_the_image_says_to_netplan_does_not_come_before_cloud_inits_word() -> None:
    """networkd takes the first file that matches a card, and netplan's of "all-en" sorts before that of "nic0"."""
    image = "etc/netplan/90-default.yaml"
    tree: Tree = {**UBUNTU_24, image: "network: {version: 2}\n"}
    assert written(planned(tree))[f"/{image}.before-snf-image"] == b"network: {version: 2}\n"
    removed = RemoveFile(path=RootPath(image))
    assert removed in planned(tree) and removed not in planned(tree, nics=[])


def test_user_data_is_as_it_was_given() -> None:
    given = b"#!/bin/sh\necho \xff\n"
    files = written(planned(UBUNTU_24, cloud_init={"userdata": base64.b64encode(given).decode()}))
    assert files[f"{SEED}/user-data"] == given
    assert config(written(planned(UBUNTU_24))[f"{SEED}/user-data"]) == {}


@pytest.mark.parametrize(
    ("version", "key"), [((22, 2), "list"), ((22, 3), "users"), ((24, 1), "users"), ((0, 0), "list")]
)
def test_an_older_cloud_init_gets_hashes_in_its_own_words(version: tuple[int, int], key: str) -> None:
    text = render_cloud_config(manifest(**ASKED), version=version)
    chpasswd = config(text.encode())["chpasswd"]
    assert isinstance(chpasswd, dict) and set(chpasswd) == {"expire", key}


def test_the_images_version_of_cloud_init_is_found() -> None:
    assert cloud_init_version(fake_image(UBUNTU_24).files) == (24, 1)
    assert cloud_init_version(fake_image(FEDORA_41).files) == (24, 2)
    assert cloud_init_version(fake_image(DEBIAN_12).files) == (0, 0)


@pytest.mark.parametrize(
    ("skip", "gone"),
    [
        ("password", ("vendor-data", b"chpasswd")),
        ("password", ("vendor-data", b"ssh-ed25519")),
        ("ssh_host_keys", ("vendor-data", b"ssh_deletekeys")),
        ("hostname", ("meta-data", b"local-hostname")),
    ],
)
def test_the_part_of_an_excluded_task_is_left_out(skip: str, gone: tuple[str, bytes]) -> None:
    name, word = gone
    assert word in written(planned(UBUNTU_24))[f"{SEED}/{name}"]
    assert word not in written(planned(UBUNTU_24, skip=[skip]))[f"{SEED}/{name}"]


def test_without_cards_or_with_the_network_excluded_cloud_init_does_as_it_pleases() -> None:
    assert f"{SEED}/network-config" not in written(planned(UBUNTU_24, nics=[]))
    assert f"{SEED}/network-config" not in written(planned(UBUNTU_24, skip=["network"]))


def test_what_would_keep_cloud_init_from_the_seed_is_removed() -> None:
    hindrances = [
        "/etc/cloud/cloud-init.disabled",
        "/etc/cloud/cloud.cfg.d/99-snf-image-network.cfg",
        "/var/lib/cloud/seed/nocloud-net/user-data",
    ]
    tree: Tree = {**UBUNTU_24, **dict.fromkeys(hindrances, "")}
    removed = [a.path for a in planned(tree) if isinstance(a, RemoveFile)]
    assert sorted(removed) == [RootPath(path) for path in hindrances]


def test_what_a_deployment_without_cloud_init_said_of_the_network_is_taken_back() -> None:
    """netplan would join our nic0, of the MAC of another instance, with cloud-init's."""
    before = TASKS["network"].plan(fake_image(UBUNTU_24), manifest(nics=[{**NIC, "mac": "aa:00:00:00:00:99"}]))
    tree: Tree = {**UBUNTU_24, **written(list(before))}
    ours = RemoveFile(path=RootPath("etc/netplan/90-snf-image.yaml"))
    assert ours in planned(tree)
    assert ours not in planned(tree, skip=["network"]) and ours not in planned(tree, nics=[])


def test_debians_interfaces_include_those_of_cloud_init_again() -> None:
    own = "source /etc/network/interfaces.d/*\n"
    debian: Tree = {**DEBIAN_12, "usr/bin/cloud-init": "", "etc/network/interfaces": own}
    tree: Tree = {**debian, **written(list(TASKS["network"].plan(fake_image(debian), manifest(nics=[NIC]))))}
    assert tree["/etc/network/interfaces"] != own
    assert written(planned(tree))["/etc/network/interfaces"] == own.encode()
    assert "/etc/network/interfaces" not in written(planned(debian))


def test_an_image_without_cloud_init_is_refused() -> None:
    with pytest.raises(ImageError, match="has no cloud-init; deploy it with CLOUD_INIT=no"):
        planned(DEBIAN_12)


def test_without_cloud_init_in_the_manifest_nothing_is_seeded() -> None:
    with pytest.raises(Skipped, match="not asked for"):
        TASKS["cloud_init"].plan(fake_image(UBUNTU_24), manifest())


def test_without_cloud_init_the_seed_of_an_earlier_deployment_is_removed_and_nothing_else() -> None:
    seeded: Tree = {**UBUNTU_24, **written(planned(UBUNTU_24))}
    removed = TASKS["cloud_init"].plan(fake_image(seeded), manifest())
    assert [a.path for a in removed if isinstance(a, RemoveFile)] == [
        *(f"{SEED}/{name}" for name in ("meta-data", "user-data", "vendor-data", "network-config")),
        "/etc/cloud/ds-identify.cfg",
        "/etc/cloud/cloud.cfg.d/99-snf-image.cfg",
    ]
    own: Tree = {**seeded, "/etc/cloud/ds-identify.cfg": "policy: enabled\n"}
    assert RemoveFile(path=RootPath("etc/cloud/ds-identify.cfg")) not in TASKS["cloud_init"].plan(
        fake_image(own), manifest()
    )
    with pytest.raises(Skipped, match="not asked for"):
        TASKS["cloud_init"].plan(fake_image({**UBUNTU_24, f"{SEED}/user-data": "the image's own"}), manifest())


@pytest.mark.parametrize("task", ["hostname", "network", "password", "ssh_host_keys", "partition_table"])
def test_tasks_that_cloud_init_does_itself_are_skipped(task: str) -> None:
    with pytest.raises(Skipped, match="cloud-init does it"):
        must_apply(TASKS[task].INFO, manifest(cloud_init={}), family=OsFamily.LINUX, mounted=True)


@pytest.mark.parametrize("task", ["personality", "swap", "machine_id", "selinux", "cloud_init"])
def test_tasks_that_cloud_init_does_not_do_are_done_here(task: str) -> None:
    asked = manifest(cloud_init={})
    must_apply(TASKS[task].INFO, asked, family=OsFamily.LINUX, mounted=True)
    with pytest.raises(Skipped, match="not mounted"):
        must_apply(TASKS[task].INFO, asked, family=OsFamily.LINUX, mounted=False)
