"""Network configuration as text, against files that a person has read. SNF_GOLDEN=write writes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from snf_image_helper.network.ifcfg_rh import render_ifcfg_rh
from snf_image_helper.network.ifcfg_suse import render_ifcfg_suse, render_ifroute, render_ifsysctl
from snf_image_helper.network.ifupdown import render_interfaces
from snf_image_helper.network.ifupdown_ng import render_interfaces_ng
from snf_image_helper.network.netifrc import render_netifrc
from snf_image_helper.network.netplan import render_netplan, render_version_2
from snf_image_helper.network.network_manager import render_keyfile
from snf_image_helper.network.networkd import render_networkd
from snf_image_helper.network.resolv_conf import render_resolv_conf
from snf_image_helper.network.udev_names import render_names

from synnefo_light.manifest import Nic
from tests.golden.snf_image_helper.cards import CARDS

HERE = Path(__file__).resolve().parent
RENDERERS: dict[str, Callable[[Sequence[Nic]], str]] = {
    "conf.d-net": render_netifrc,
    "ifcfg-rh": lambda nics: render_ifcfg_rh(0, nics[0]),
    "ifcfg-suse": lambda nics: render_ifcfg_suse(nics[0]),
    "ifroute-suse": lambda nics: render_ifroute(0, nics[0]),
    "ifsysctl-suse": lambda nics: render_ifsysctl(0, nics[0]),
    "interfaces": render_interfaces,
    "interfaces-ng": render_interfaces_ng,
    "netplan.yaml": render_netplan,
    "network-config": lambda nics: render_version_2(nics, for_cloud_init=True),
    "network": lambda nics: render_networkd(nics[0]),
    "nmconnection": lambda nics: render_keyfile(0, nics[0]),
    "resolv.conf": render_resolv_conf,
    "rules": render_names,
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
