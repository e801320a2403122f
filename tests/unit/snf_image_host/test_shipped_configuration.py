from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from snf_image_host.settings import Settings

from synnefo_light import config

SHIPPED = Path(__file__).parents[3] / "snf-image-host" / "snf-image.toml"


def test_the_shipped_file_changes_nothing() -> None:
    assert config.load(SHIPPED, Settings) == Settings()


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    shown = re.sub(r"^#(?=\w+ = )", "", SHIPPED.read_text(), flags=re.MULTILINE)
    assert config.parse(shown.encode(), Settings, name="shown") == Settings()
    keys = set(re.findall(r"^(\w+) = ", shown, flags=re.MULTILINE))
    assert keys == {f.name for f in dataclasses.fields(Settings)}
