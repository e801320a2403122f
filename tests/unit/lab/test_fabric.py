"""The network is decided before anything is made."""

from __future__ import annotations

from pathlib import Path

from snf_lab import fabric


def test_the_switch_has_one_bridge_for_ganeti_and_one_for_instances() -> None:
    lines = fabric.plan_switch()
    assert "addr add 10.78.0.254/24 dev br-mgmt" in lines
    assert "addr add 10.78.1.254/24 dev br-vm" in lines
    assert [line for line in lines if line.startswith("link set br-")] == ["link set br-mgmt up", "link set br-vm up"]


def test_a_nodes_cables_end_in_the_switchs_namespace() -> None:
    lines = fabric.plan_node(3, switch=Path("/state/netns/switch"))
    cables = [line for line in lines if "type veth" in line]
    assert cables == [
        "link add eth0 type veth peer name m3 netns /state/netns/switch",
        "link add eth1 type veth peer name v3 netns /state/netns/switch",
    ]
    assert "addr add 10.78.0.3/24 dev eth0" in lines


def test_a_node_can_reach_instances_from_its_own_bridge() -> None:
    lines = fabric.plan_node(2, switch=Path("/s"))
    assert "addr add 10.78.1.2/24 dev br0" in lines
    assert lines.index("link set eth1 master br0") < lines.index("link set br0 up")


def test_nothing_leads_out_of_the_lab() -> None:
    every = [*fabric.plan_switch(), *fabric.plan_node(1, switch=Path("/s")), *fabric.plan_plug(1)]
    assert [line for line in every if line.startswith("route")] == []


def test_what_is_plugged_in_is_what_is_unplugged() -> None:
    plugged = {line.split()[2] for line in fabric.plan_plug(4)}
    unplugged = {line.split()[2] for line in fabric.plan_unplug(4)}
    assert plugged == unplugged == {"m4", "v4"}


def test_no_address_is_given_twice() -> None:
    nodes = range(1, 5)
    given = [fabric.CLUSTER_IP, f"{fabric.MANAGEMENT}.{fabric.SWITCH_HOST}", fabric.INSTANCE_GATEWAY]
    given += [fabric.management_ip(n) for n in nodes] + [fabric.instance_side_ip(n) for n in nodes]
    assert len(set(given)) == len(given)
