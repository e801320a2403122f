"""Network configuration as text, against files that a person has read. SNF_GOLDEN=write writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snf_image_helper.renderers import render_interfaces, render_netplan, render_networkd, render_resolv_conf

from tests.golden.snf_image_helper.cards import CARDS

HERE = Path(__file__).resolve().parent
RENDERERS = {
    "interfaces": render_interfaces,
    "netplan.yaml": render_netplan,
    "network": lambda nics: render_networkd(nics[0]),
    "resolv.conf": render_resolv_conf,
}


@pytest.mark.parametrize("cards", CARDS)
@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_text_is_as_it_was_read(cards: str, renderer: str) -> None:
    file = HERE / f"{cards}.{renderer}"
    text = RENDERERS[renderer](CARDS[cards])
    if os.environ.get("SNF_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def test_every_file_here_is_compared() -> None:
    expected = {f"{cards}.{renderer}" for cards in CARDS for renderer in RENDERERS}
    assert {f.name for f in HERE.iterdir() if f.suffix not in (".py", "") and not f.is_dir()} == expected
