"""What `snf-image convert` makes of its words."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_image_host.conversion import Conversion, parse_conversion
from snf_image_host.plan import customises
from snf_image_host.settings import Settings
from snf_image_host.sources import FtpImage, HttpImage, LocalImage
from snf_image_host.values import Checksum, Signature
from snf_image_host.vm import HelperImage

from synnefo_light.errors import UserError
from synnefo_light.manifest import Compression, ImageFormat, SourceFormat
from synnefo_light.units import GIB
from tests.task_list import ORDER

HELPER = HelperImage(folder=Path("/nowhere"), version="1", tasks=ORDER)
HASH = "ab" * 32


def conversion(source: str, **given: str) -> Conversion:
    return Conversion(source=source, size_limit=GIB, **given)


def test_a_path_is_an_image_of_its_own_folder_and_nothing_in_it_is_changed(tmp_path: Path) -> None:
    (tmp_path / "link.qcow2").symlink_to(tmp_path / "real.img")
    parameters, settings = parse_conversion(conversion(str(tmp_path / "x.qcow2")), Settings(), HELPER)
    assert (parameters.source, settings.image_dir) == (LocalImage(name="x.qcow2"), tmp_path)
    assert (parameters.source_format, parameters.image_format) == (SourceFormat.QCOW2, ImageFormat.DISKDUMP)
    assert not customises(parameters, ORDER)
    linked, _ = parse_conversion(conversion(str(tmp_path / "link.qcow2"), format="vdi"), Settings(), HELPER)
    assert (linked.source, linked.source_format) == (LocalImage(name="real.img"), SourceFormat.VDI)


@pytest.mark.parametrize(
    ("link", "target", "encoding"),
    [
        ("debian.qcow2", "v1.img", (SourceFormat.QCOW2, Compression.NONE)),
        ("debian.raw.xz", "v1", (SourceFormat.RAW, Compression.XZ)),
        ("debian.raw", "v1.qcow2", (SourceFormat.RAW, Compression.NONE)),
        ("debian", "v1.gz", (SourceFormat.RAW, Compression.NONE)),
    ],
)
def test_a_links_own_name_tells_the_encoding(
    tmp_path: Path, link: str, target: str, encoding: tuple[SourceFormat, Compression]
) -> None:
    (tmp_path / link).symlink_to(target)
    parameters, _ = parse_conversion(conversion(str(tmp_path / link)), Settings(), HELPER)
    assert parameters.source == LocalImage(name=target)
    assert (parameters.source_format, parameters.compression) == encoding


def test_an_address_is_one_as_a_deployments(tmp_path: Path) -> None:
    (tmp_path / "x.sig").write_bytes(b"signature")
    given = {"checksum": f"sha256:{HASH}", "signature": str(tmp_path / "x.sig"), "compression": "zstd"}
    keys = Settings(signature_keyrings=("/k",))
    parameters, settings = parse_conversion(conversion("https://h.example/x", **given), keys, HELPER)
    assert parameters.source == HttpImage(url="https://h.example/x")
    assert parameters.checksum == Checksum(algorithm="sha256", hexdigest=HASH)
    assert parameters.signature == Signature(content=b"signature")
    assert parameters.compression is Compression.ZSTD
    assert settings == keys
    signed = conversion("ftp://h.example/x", signature="https://h.example/x.sig")
    other, _ = parse_conversion(signed, keys, HELPER)
    assert (other.source, other.signature) == (
        FtpImage(url="ftp://h.example/x"),
        Signature(source=HttpImage(url="https://h.example/x.sig")),
    )


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (conversion("store://debian"), "store://debian cannot be converted; give a path"),
        (conversion("file:///etc/x"), "cannot be converted"),
        (conversion("gopher://h/x"), "'gopher://h/x' is neither"),
        (conversion("/x.qcow2", compression="xz"), "the image is qcow2 within xz"),
        (conversion("/x", checksum="sha256:1"), "--checksum: 'sha256:1' is neither sha256"),
        (conversion("/x", signature="/nonexistent"), "the signature /nonexistent cannot be read"),
        (conversion("/x", signature="https://h/s"), "--signature is given, but the node has no keys"),
    ],
)
def test_what_cannot_be_is_refused_in_the_words_of_the_command(wanted: Conversion, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        parse_conversion(wanted, Settings(), HELPER)
    assert "img_" not in str(caught.value).replace("img_id", "")
