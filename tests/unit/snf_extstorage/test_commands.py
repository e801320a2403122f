from __future__ import annotations

import pytest
from snf_extstorage.archipelago import PARAMETERS
from snf_extstorage.catalog import Cut
from snf_extstorage.commandline import COMMANDS, parse
from snf_extstorage.commands import table
from snf_extstorage.commands.reconcile import ask_ganeti
from snf_extstorage.commands.snapshot import plan_cut, require_here
from snf_extstorage.commands.volume import _lines
from snf_extstorage.provider import render_parameters_list
from snf_extstorage.settings import Settings
from snf_extstorage.volume import InUse, VolumeFacts

from synnefo_light import config
from synnefo_light.errors import ConfigError, EnvironmentFault, ToolError, UsageError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import Bytes
from tests.unit.snf_extstorage.tree import ROOM


def disks(*numbers: int) -> dict[int, VolumeFacts]:
    return {
        number: VolumeFacts(
            name=VolumeName(f"v.ext.disk{number}"),
            uuid=None,
            size=Bytes(1),
            origin=None,
            generation=0,
            info="",
            holders=("node2",) if number == 2 else (),
            exclusive=False,
            stored=None,
            extents=None,
        )
        for number in numbers
    }


def test_the_disks_of_a_cut_get_names_of_their_own_and_a_single_one_the_name_itself() -> None:
    assert plan_cut(disks(0, 2), "golden") == [
        Cut(volume=VolumeName("v.ext.disk0"), name="golden"),
        Cut(volume=VolumeName("v.ext.disk2"), name="golden-disk2"),
    ]
    assert plan_cut(disks(2), "golden") == [Cut(volume=VolumeName("v.ext.disk2"), name="golden")]


def test_a_guest_that_another_node_has_is_not_cut_from_here() -> None:
    require_here("web1", disks(0, 1).values(), "node1")
    require_here("web1", disks(0, 2).values(), "node2")
    with pytest.raises(InUse, match="open on node2, and this is node1; call `snf-store snapshot` on node2"):
        require_here("web1", disks(0, 2).values(), "node1")


@pytest.mark.parametrize("words", [[], ["nothing"], ["image"], ["image", "add", "x"], ["volume", "grow"]])
def test_wrong_words_are_refused_in_one_sentence(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--help"):
        parse(words)


def test_every_command_can_be_asked_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as caught:
            parse([command.NAME, "--help"])
        assert caught.value.code == 0
        assert command.SUMMARY.split(",")[0][:30] in " ".join(capsys.readouterr().out.split())


def test_a_table_is_as_wide_as_it_must_be() -> None:
    assert table(("A", "B"), [("xyz", "1"), ("x", "")]) == ["A    B", "xyz  1", "x"]


def test_parameters_list_says_what_create_takes() -> None:
    assert (ROOM / "archipelago" / "parameters.list").read_text() == render_parameters_list(PARAMETERS)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('folder = "x"', "not an absolute path"),
        ("reserve_percent = 51", "from 0 to 50"),
        ("critical_percent = 21", "critical_percent is 21 and warning_percent 20"),
        ("warning_percent = 91", "from 0 to 90"),
        ("cow_extent_kib = 1", "from 4 to 65536"),
        ('engine = "zfs"', "engine"),
        ("foldr = 1", "foldr"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config.parse(text.encode(), Settings, name="snf-store.toml")


def _sets(line: str) -> bool:
    return " = " in line or line.startswith("# [")


def test_the_shipped_configuration_says_the_defaults() -> None:
    shipped = (ROOM / "snf-store.toml").read_text()
    assert config.parse(shipped.encode(), Settings, name="x") == Settings()
    bare = "".join(line.removeprefix("# ") for line in shipped.splitlines(keepends=True) if _sets(line))
    assert config.parse(bare.encode(), Settings, name="x") == Settings()


def test_a_volume_is_shown_to_people_without_what_it_has_not() -> None:
    shown = list(_lines(disks(2)[2]))
    assert shown == ["name: v.ext.disk2", "size: 1 (1 B)", "generation: 0", "holders: node2"]


def test_who_has_no_ganeti_is_sent_to_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter(["was not found", "exited with 1"])

    def run(argv: list[str], *, timeout_s: float) -> None:
        raise ToolError(argv, next(outcomes))

    monkeypatch.setattr("snf_extstorage.commands.reconcile.run_program", run)
    with pytest.raises(EnvironmentFault, match="gnt-job is not on this node; call this on the master"):
        ask_ganeti()
    with pytest.raises(ToolError, match="gnt-job exited with 1"):
        ask_ganeti()
