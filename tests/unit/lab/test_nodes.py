"""What boots a node and what it has from the start; what a lab remembers; what Ganeti is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from snf_lab import cli, cluster, command, nspawn, ties
from snf_lab.state import DEFAULT, RELEASES, LabConfig, State

from synnefo_light.errors import EnvironmentFault, UserError

LEGACY = ["--", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.unified_cgroup_hierarchy=0"]


def boot_words(release: str, *, cgroup_v2: bool) -> list[str]:
    words = nspawn.plan_nspawn(
        number=2,
        machine="snf-lab-node2",
        release=RELEASES[release],
        root=Path("/state/run/nodes/2/root"),
        binds=(nspawn.Bind(source=Path("/a"), target="/b"), nspawn.Bind(source=Path("/c"), target="/d", writable=True)),
        cgroup_v2=cgroup_v2,
    )
    return [str(word) for word in words]


@pytest.mark.parametrize(
    ("release", "cgroup_v2", "forced"),
    [("bookworm", False, False), ("bookworm", True, False), ("trixie", False, True), ("trixie", True, False)],
)
def test_only_a_new_systemd_on_old_cgroups_is_forced(release: str, cgroup_v2: bool, forced: bool) -> None:
    words = boot_words(release, cgroup_v2=cgroup_v2)
    assert (words[-3:] == LEGACY) is forced
    assert "--boot" in words


def test_binds_are_read_only_unless_asked_for() -> None:
    words = boot_words("bookworm", cgroup_v2=True)
    assert "--bind-ro=/a:/b" in words
    assert "--bind=/c:/d" in words


def test_nspawn_does_not_take_the_network_namespace_itself() -> None:
    assert not [word for word in boot_words("bookworm", cgroup_v2=True) if "network" in word]


def test_a_node_gets_the_devices_that_the_host_has_and_all_loop_devices() -> None:
    lines = nspawn.render_devices({"/dev/net/tun", "/dev/sda"}).splitlines()
    assert lines[0] == "c /dev/net/tun 0666 root root - 10:200"
    assert len(lines) == 1 + nspawn.LOOP_DEVICES
    assert all(line.startswith("b /dev/loop") for line in lines[1:])


def test_a_nodes_apt_knows_our_repository_alone() -> None:
    files = {f.path: f.content for f in nspawn.node_files(1, machine_id="0" * 32, devices=())}
    sources = [content for path, content in files.items() if "sources" in path]
    assert sources == [f"deb [trusted=yes] file:{nspawn.REPO} ./\n"]


def test_every_node_knows_every_other_and_the_cluster() -> None:
    hosts = nspawn.render_hosts()
    assert "10.78.0.250 cluster.lab.test cluster\n" in hosts
    for number in range(1, 5):
        assert f"10.78.0.{number} node{number}.lab.test node{number}\n" in hosts


@pytest.mark.parametrize(("release", "nodes"), [("sid", 1), ("bookworm", 0), ("bookworm", 5)])
def test_a_lab_that_cannot_be_is_refused(release: str, nodes: int) -> None:
    with pytest.raises(UserError):
        LabConfig(release=release, nodes=nodes, dev=False)


def test_a_lab_is_remembered(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.read_config() is None
    state.make_folders()
    config = LabConfig(release="trixie", nodes=3, dev=True, root="trixie-1")
    state.write_config(config)
    assert state.read_config() == config


@pytest.mark.parametrize("content", ["", "[]", '{"release": "bookworm"}', '{"nodes": 1, "x": 2}'])
def test_a_damaged_memory_names_the_way_out(tmp_path: Path, content: str) -> None:
    state = State(tmp_path)
    state.make_folders()
    (state.run / "lab.json").write_text(content)
    with pytest.raises(EnvironmentFault, match="lab down"):
        state.read_config()


def test_two_state_directories_are_two_labs(tmp_path: Path) -> None:
    assert State(DEFAULT).name == "snf-lab"
    assert State(tmp_path / "a").name != State(tmp_path / "b").name
    assert State(tmp_path / "a").name.startswith("snf-lab-")


def test_a_second_command_is_told_that_the_lab_is_busy(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.locked(), pytest.raises(EnvironmentFault, match=r"another \./lab command"), state.locked():
        raise AssertionError("two commands held the lab")
    with state.locked():
        pass


def test_the_accelerator_decides_under_which_name_qemu_is_called() -> None:
    accel = cluster.parse_accel('{"accel":"kvm","reason":"booted in 1.2 s"}')
    assert (accel.name, accel.kvm_path) == ("kvm", "/usr/bin/kvm")
    accel = cluster.parse_accel('{"accel":"tcg","reason":"no /dev/kvm"}')
    assert (accel.name, accel.reason) == ("tcg", "no /dev/kvm")
    assert any("kvm_path=/usr/bin/qemu-system-x86_64" in word for word in cluster.plan_init(accel))


@pytest.mark.parametrize("text", ["", "kvm", "[]", '{"accel":"hvf"}', "{}"])
def test_an_accelerator_nobody_knows_is_not_guessed(text: str) -> None:
    with pytest.raises(EnvironmentFault, match="snf-image accel"):
        cluster.parse_accel(text)


def test_the_instances_network_keeps_the_nodes_addresses() -> None:
    add, connect = cluster.plan_network(2)
    assert "--add-reserved-ips=10.78.1.1,10.78.1.2" in add
    assert "--gateway=10.78.1.254" in add
    assert connect[-1] == add[-1] == "lab-net"


def test_every_subcommand_is_a_module_and_explains_itself() -> None:
    commands = command.discover()
    assert {"up", "down", "sh", "x", "crash", "boot", "status", "doctor"} <= set(commands)
    text = cli.build_parser(commands).format_help()
    for name, found in commands.items():
        assert name in text
        assert found.summary


def test_a_commands_words_are_passed_on_as_they_are() -> None:
    parser = cli.build_parser(command.discover())
    parsed: argparse.Namespace = parser.parse_args(["x", "2", "ls", "-l", "--", "--help"])
    assert (parsed.node, parsed.words) == (2, ["ls", "-l", "--", "--help"])


def test_all_are_done_before_the_first_error_is_raised() -> None:
    done: list[int] = []

    def act(number: int) -> None:
        if number == 2:
            raise ValueError("two")
        done.append(number)

    with pytest.raises(ValueError, match="two"):
        ties.on_each([1, 2, 3], act)
    assert sorted(done) == [1, 3]


def test_a_contained_program_dies_with_us() -> None:
    words = ties.contained(["make", "all"])
    assert words[-2:] == ["make", "all"]
    assert words[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert "--kill-child=KILL" in words
