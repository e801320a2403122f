from __future__ import annotations

import pytest
from snf_extstorage.archipelago import Archipelago
from snf_extstorage.directory.engine import DirectoryVolumes
from snf_extstorage.provider import Parameter, Provider, refuse_unknown, render_parameters_list
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.provider import Rados
from snf_extstorage.volume import Attachment, Volumes

from synnefo_light.errors import UserError

KNOWN = (Parameter(name="origin", help="What it begins as"), Parameter(name="adopt", help="What to take over"))


def test_what_attach_prints_is_never_a_lone_newline() -> None:
    assert Attachment(device="/dev/loop3").stdout() == "/dev/loop3"
    both = Attachment(device="/dev/loop3", uris=("kvm:/srv/x",))
    assert both.stdout() == "/dev/loop3\nkvm:/srv/x"
    assert Attachment(device=None, uris=("kvm:rbd:p/x",)).stdout() == "\nkvm:rbd:p/x"
    with pytest.raises(ValueError, match="device or a URI"):
        Attachment(device=None).stdout()


def test_an_unknown_disk_option_is_refused_by_name() -> None:
    refuse_unknown({"origin": "x"}, KNOWN, provider="archipelago")
    with pytest.raises(UserError, match=r"'orgin' is not known to provider archipelago; it knows adopt, origin"):
        refuse_unknown({"orgin": "x"}, KNOWN, provider="archipelago")


def test_the_parameter_list_has_no_blank_line() -> None:
    assert render_parameters_list(KNOWN) == "origin What it begins as\nadopt What to take over\n"


def test_every_engine_and_provider_has_all_that_the_contract_names() -> None:
    """mypy holds the types to it here; the names are compared too, for who runs tests without it."""
    engines: list[type[Volumes]] = [DirectoryVolumes, RadosVolumes]
    providers: list[type[Provider]] = [Archipelago, Rados]
    for contract, made in ((Volumes, engines), (Provider, providers)):
        names = {name for name in vars(contract) if not name.startswith("_")}
        assert names
        for one in made:
            assert names - set(dir(one)) == set()
