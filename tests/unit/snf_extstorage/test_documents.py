"""What can be given is documented, and what is documented can be given."""

from __future__ import annotations

import argparse
import dataclasses
import re

import pytest
from snf_extstorage.archipelago import PARAMETERS
from snf_extstorage.commandline import COMMANDS
from snf_extstorage.main import PARSERS
from snf_extstorage.providers import PROVIDERS
from snf_extstorage.rados import provider as rados
from snf_extstorage.settings import CephSettings, Settings

from tests.unit.snf_extstorage.tree import ROOM, TREE

PROVIDER = (TREE / "man" / "snf-extstorage.7.md").read_text()
STORE = (TREE / "man" / "snf-store.8.md").read_text()


def section(page: str, name: str) -> str:
    return page.split(f"# {name}\n", 1)[1].split("\n# ", 1)[0]


def test_every_disk_option_is_in_the_page_and_no_other() -> None:
    documented = re.findall(r"^\*\*([a-z_]+)\*\*$", section(PROVIDER, "PARAMETERS"), re.MULTILINE)
    assert sorted(documented) == sorted(p.name for p in PARAMETERS)
    documented = re.findall(r"^\*\*([a-z_]+)\*\*$", section(PROVIDER, "THE PROVIDER RADOS"), re.MULTILINE)
    assert sorted(documented) == sorted(p.name for p in rados.PARAMETERS)


def test_the_packages_that_ceph_needs_are_suggested_and_in_the_page() -> None:
    """Nobody who keeps volumes in files should have to install them."""
    needed = re.search(r"^    apt install (.+)$", section(PROVIDER, "ON CEPH"), re.MULTILINE)
    assert needed is not None
    control = {p.split("\n", 1)[0]: p for p in (TREE / "debian" / "control").read_text().split("\nPackage: ")}
    suggested = {name: _field(control[name], "Suggests") for name in ("snf-extstorage", "snf-image-host")}
    assert set(needed[1].split()) == (suggested["snf-extstorage"] | suggested["snf-image-host"]) - set(control)
    assert suggested["snf-image-host"] >= {"python3-libnbd", "qemu-block-extra", "qemu-utils"}
    assert suggested["snf-extstorage"] >= {"ceph-common", "python3-rados", "python3-rbd", "qemu-block-extra"}


def _field(paragraph: str, name: str) -> set[str]:
    found = re.search(rf"^{name}:((?:\n .+)+)", paragraph, re.MULTILINE)
    return {word.strip() for word in found[1].split(",") if word.strip()} if found else set()


def test_every_command_is_in_the_page_and_no_other() -> None:
    documented = set(re.findall(r"\*\*snf-store ([a-z]+)", section(STORE, "SYNOPSIS"))) | {"recv"}
    assert documented == {c.NAME for c in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.NAME)
def test_every_option_of_a_command_is_in_its_page(command: object) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)  # type: ignore[attr-defined]
    options = {o for a in _actions(parser) for o in a.option_strings if o.startswith("--") and o != "--help"}
    assert {o for o in options if f"**{o}**" not in STORE} == set()


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found += _actions(sub)
    return found


def test_every_setting_is_in_the_page_and_in_the_shipped_file() -> None:
    shipped = (ROOM / "snf-store.toml").read_text()
    assert "\n# [ceph]\n" in shipped
    assert "**[ceph]**" in PROVIDER
    plain = [field for field in dataclasses.fields(Settings) if field.name != "ceph"]
    for field in (*plain, *dataclasses.fields(CephSettings)):
        assert f"**{field.name}**" in PROVIDER
        assert f"# {field.name} = " in shipped


def test_every_script_that_ganeti_looks_for_is_there_and_installed() -> None:
    installed = (TREE / "debian" / "snf-extstorage.install").read_text()
    for name in (*PARSERS, "verify", "parameters.list"):
        assert (ROOM / "archipelago" / name).is_file(), name
        for provider in PROVIDERS:
            assert f"extstorage/{provider}/{name} usr/share/ganeti/extstorage/{provider}\n" in installed
            assert f"extstorage/dispatch usr/share/ganeti/extstorage/{provider}\n" in installed


def test_the_lvm_filter_is_that_of_the_other_room() -> None:
    ours, theirs = ((TREE / room / "lvm-filter.conf").read_text() for room in ("extstorage", "snf-image-host"))
    assert ours.partition("devices {")[2] == theirs.partition("devices {")[2]
