from __future__ import annotations

import pytest
from snf_extstorage.archipelago import PARAMETERS
from snf_extstorage.catalog import Cut
from snf_extstorage.commandline import COMMANDS, parse
from snf_extstorage.commands import table
from snf_extstorage.commands.snapshot import plan_cut
from snf_extstorage.provider import render_parameters_list
from snf_extstorage.settings import Settings

from synnefo_light import config
from synnefo_light.errors import ConfigError, UsageError, UserError
from synnefo_light.ganeti import VolumeName
from tests.unit.snf_extstorage.tree import ROOM

DISKS = {0: VolumeName("a.ext.disk0"), 2: VolumeName("b.ext.disk2")}


def test_a_cut_has_all_disks_or_the_one_that_was_named() -> None:
    assert plan_cut("web1", "", DISKS, "golden") == [
        Cut(volume=DISKS[0], name="golden"),
        Cut(volume=DISKS[2], name="golden-disk2"),
    ]
    assert plan_cut("web1", "2", DISKS, "golden") == [Cut(volume=DISKS[2], name="golden")]


@pytest.mark.parametrize(("disk", "has"), [("1", "it has 0, 2"), ("x", "it has 0, 2"), ("-1", "it has 0, 2")])
def test_a_disk_that_is_not_there_is_refused(disk: str, has: str) -> None:
    with pytest.raises(UserError, match=has):
        plan_cut("web1", disk, DISKS, "golden")


def test_an_instance_without_volumes_is_refused() -> None:
    with pytest.raises(UserError, match="no volume here belongs to the instance web2"):
        plan_cut("web2", "", {}, "golden")


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
