from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from synnefo_light import config, units
from synnefo_light.errors import ConfigError, UserError
from synnefo_light.log import Secret, escape


def test_a_secret_hides_in_every_format() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r}" + str([secret])
    assert secret.reveal() == "hunter2"


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\nb", "\r", "\x9b1m", "\u202e", "\x00"])
def test_escaped_text_has_no_control_characters(hostile: str) -> None:
    assert escape(hostile).isprintable()


def test_escaped_text_is_cut_with_a_count() -> None:
    assert escape("x" * 500, limit=10) == "x" * 10 + "[490 more]"


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("10M", 10 << 20), ("2 GiB", 2 << 30), ("1tb", 1 << 40), ("4k", 4096)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.5G", "-1", "1X", "9" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a number"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1536 << 20, "1.5 GiB"), (1 << 30, "1 GiB"), (1 << 10, "1 KiB")]
)
def test_sizes_are_shown_as_people_read_them(size: int, shown: str) -> None:
    assert units.human(size) == shown


def test_a_size_rounds_up_to_mib() -> None:
    assert (units.mib_at_least(1), units.mib_at_least(1 << 20), units.mib_at_least((1 << 20) + 1)) == (1, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    memory_mib: int = 256


def test_no_file_is_all_defaults(tmp_path: Path) -> None:
    assert config.load(tmp_path / "none.toml", Settings) == Settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("memory = 1", "memory: this key is not known"),
        ("memory_mib = '1'", "not a whole number"),
        ("= 1", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_refused_with_file_and_key(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path, Settings)
    assert sentence in str(caught.value) and str(path) in str(caught.value)
