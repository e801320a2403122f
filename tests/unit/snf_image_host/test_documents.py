"""snf-image(7) and snf-image(8) against the code, both ways: all that is there is documented, nothing else is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tomllib
from pathlib import Path

import pytest
from snf_image_host import journal, main
from snf_image_host.commands import Command
from snf_image_host.params import PARAMETERS
from snf_image_host.properties import PROPERTIES
from snf_image_host.report import Report
from snf_image_host.settings import Settings

from synnefo_light import config, errors, events
from synnefo_light.tasks import TaskInfo
from tests.task_list import ORDER

TREE = Path(__file__).resolve().parents[3]
PAGE = (TREE / "man" / "snf-image.7.md").read_text()
COMMAND = (TREE / "man" / "snf-image.8.md").read_text()
EVENTS = (TREE / "man" / "snf-events.7.md").read_text()


def section(page: str, title: str) -> str:
    _, _, rest = page.partition(f"\n# {title}\n")
    assert rest, f"there is no section {title}"
    return rest.partition("\n# ")[0]


def table(title: str) -> list[tuple[str, ...]]:
    """The rows of the table in a section, without its head."""
    lines = [line for line in section(PAGE, title).splitlines() if line.startswith("|")]
    rows = [line.strip("|").replace("\\|", "\x00").split("|") for line in lines[2:]]
    return [tuple(cell.strip().replace("\x00", "|") for cell in row) for row in rows]


def test_the_parameters_are_those_of_the_table() -> None:
    assert table("OS PARAMETERS") == [(p.name, p.kind, p.default, p.summary) for p in PARAMETERS]


def test_the_properties_are_those_of_the_table() -> None:
    assert table("PROPERTIES") == [(p.name, p.kind, p.default or "none", p.summary) for p in PROPERTIES]


@pytest.mark.parametrize("task", ORDER, ids=lambda t: t.name)
def test_each_task_has_its_paragraph(task: TaskInfo) -> None:
    title = f"**{task.name}** ({task.snf_image})" if task.snf_image else f"**{task.name}**"
    assert f"\n{title}\n: " in section(PAGE, "TASKS")


def test_the_configuration_keys_are_those_of_the_settings() -> None:
    settings = Settings()

    def shown(value: object) -> str:
        return json.dumps(list(value)) if isinstance(value, tuple) else str(value)

    expected = [(f.name, shown(getattr(settings, f.name))) for f in dataclasses.fields(Settings)]
    assert [row[:2] for row in table("CONFIGURATION")] == expected


def test_the_exit_codes_are_those_of_the_errors() -> None:
    found = {errors.EXIT_BUG, 0}
    classes = [errors.Error]
    while classes:
        cls = classes.pop()
        classes += [c for c in cls.__subclasses__() if c.__module__ == errors.__name__]
        found |= {cls.exit_code} if cls is not errors.Error else set()
    assert {int(row[0]) for row in table("EXIT CODES")} == found


def test_the_commands_are_those_of_the_page() -> None:
    paragraphs = re.findall(r"\n\n?\*\*([a-z]+)\*\*[^\n]*\n: ", "\n" + section(COMMAND, "COMMANDS"))
    assert sorted(paragraphs) == sorted(command.NAME for command in main._commands())
    synopsis = section(COMMAND, "SYNOPSIS")
    assert [name for name in paragraphs if f"**snf-image {name}**" not in synopsis] == []


@pytest.mark.parametrize("command", main._commands(), ids=lambda c: c.NAME)
def test_each_option_of_a_command_is_on_the_page(command: Command) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = [word for action in parser._actions for word in action.option_strings if word not in ("-h", "--help")]
    text = section(COMMAND, "COMMANDS") + section(COMMAND, "SYNOPSIS")
    assert [word for word in options if f"**{word}**" not in text] == []


@pytest.mark.parametrize("type_", events._DETAILS)
def test_each_event_type_is_described_with_its_details(type_: str) -> None:
    terms = (text.partition("\n:") for text in section(EVENTS, "TYPES").split("\n\n"))
    (paragraph,) = (described for names, _, described in terms if f"**{type_}**" in names and described)
    for field in dataclasses.fields(events._DETAILS[type_]):
        assert f"**{field.name}**" in paragraph, field.name


@pytest.mark.parametrize("field", dataclasses.fields(Report), ids=lambda f: f.name)
def test_each_key_of_a_report_is_described(field: dataclasses.Field[object]) -> None:
    assert f"**{field.name}**" in section(COMMAND, "FILES")


@pytest.mark.parametrize("kind", journal._KINDS)
def test_each_record_of_the_journal_is_described(kind: str) -> None:
    files = section(COMMAND, "FILES")
    assert f"`{kind}`" in files
    for field in dataclasses.fields(journal._KINDS[kind]):
        assert f"**{field.name}**" in files, field.name


def test_the_shipped_configuration_shows_each_key_with_its_default_and_sets_none() -> None:
    text = (TREE / "snf-image-host" / "snf-image.toml").read_text()
    assert config.parse(text.encode(), Settings, name="snf-image.toml") == Settings()
    shown = "".join(f"{line[1:]}\n" for line in text.splitlines() if line.startswith("#") and not line.startswith("# "))
    assert set(tomllib.loads(shown)) == {f.name for f in dataclasses.fields(Settings)}
    assert config.parse(shown.encode(), Settings, name="snf-image.toml") == Settings()
