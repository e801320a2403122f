"""OS parameters: what is taken, what is refused, with which sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from snf_image_host.params import (
    PARAMETERS,
    ParameterError,
    parse_parameters,
    render_parameters_list,
)
from snf_image_host.plan import check_parameters
from snf_image_host.settings import Settings
from snf_image_host.sources import FtpImage, HttpImage, LocalImage, NoImage
from snf_image_host.values import Checksum, Signature
from snf_image_host.vm import HelperImage

from synnefo_light.encodings import encoding_of
from synnefo_light.errors import Error
from synnefo_light.log import Secret
from synnefo_light.manifest import Compression, ImageFormat, SourceFormat
from synnefo_light.tasks import OsFamily, Phase
from tests.task_list import ORDER

TREE = Path(__file__).resolve().parents[3]
GOOD = {"img_id": "debian-12.raw", "img_format": "diskdump"}
HELPER = HelperImage(folder=Path("/nowhere"), version="1", tasks=ORDER)


def refusal(given: dict[str, str], **settings: Any) -> str:
    with pytest.raises(Error) as caught:
        check_parameters(parse_parameters(given, tasks=ORDER), Settings(**settings), HELPER)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("img_id", "source"),
    [
        ("debian-12.raw", LocalImage(name="debian-12.raw")),
        ("debian/12.raw", LocalImage(name="debian/12.raw")),
        ("local://debian-12.raw", LocalImage(name="debian-12.raw")),
        ("LOCAL://debian-12.raw", LocalImage(name="debian-12.raw")),
        ("file:///var/lib/snf-image/x", LocalImage(name="/var/lib/snf-image/x", deprecated=True)),
        ("http://images.example/x.raw", HttpImage(url="http://images.example/x.raw")),
        ("https://images.example:8443/x?a=b", HttpImage(url="https://images.example:8443/x?a=b")),
        ("ftp://images.example/pub/x.raw", FtpImage(url="ftp://images.example/pub/x.raw")),
        ("ftps://images.example:2121/x", FtpImage(url="ftps://images.example:2121/x")),
        ("null", NoImage()),
    ],
)
def test_img_id_says_which_source_it_is(img_id: str, source: object) -> None:
    assert parse_parameters(GOOD | {"img_id": img_id}, tasks=ORDER).source == source


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"img_id": ""}, "img_id: it names no file"),
        ({"img_id": "../x"}, "img_id: '../x' contains '..', which would lead out of the image folder"),
        ({"img_id": "a/../../x"}, "img_id: 'a/../../x' contains '..', which would lead out of the image folder"),
        ({"img_id": "/etc/passwd"}, "img_id: '/etc/passwd' is an absolute path; give the name below the image folder"),
        (
            {"img_id": "file:///etc/../../x"},
            "img_id: '/etc/../../x' contains '..', which would lead out of the image folder",
        ),
        (
            {"img_id": "gopher://x/y"},
            "img_id: 'gopher://x/y' is neither a file of the image folder (NAME or local://NAME), an http(s) or ftp(s) "
            "address, an image of the store (store://NAME), nor null",
        ),
        (
            {"img_id": "pithos://a/b/c"},
            "img_id: pithos: names a file of an account, of which the store here knows nothing; give store://NAME as "
            "`snf-store image list` shows it, a file of the image folder, or an http(s) or ftp(s) address",
        ),
        ({"img_id": "ftp://h/"}, "img_id: 'ftp://h/' names no file"),
        ({"img_id": "ftp://h/a%0aDELE%20b"}, "img_id: 'ftp://h/a%0aDELE%20b' has control characters in its path"),
        (
            {"img_id": "ftp://u:p@h/x"},
            "img_id: the address carries a user or password, which everybody who may list instances could read",
        ),
        ({"img_id": "a\nb"}, "img_id: it has control characters or is longer than 4096 characters"),
        ({"img_id": "http:///x"}, "img_id: 'http:///x' names no host"),
        (
            {"img_id": "http://u:p@h/x"},
            "img_id: the address carries a user or password, which everybody who may list instances could read",
        ),
        (
            {"img_format": "qcow3"},
            "img_format: 'qcow3' is not a format; give one of diskdump, extdump, ntfsdump",
        ),
        (
            {"img_format": "extdump", "img_id": "x.ext4.xz"},
            "img_format is extdump, which is taken raw and uncompressed only, but the image is xz (by its name, "
            "img_source_format or img_compression); unpack it, or make a diskdump of it",
        ),
        (
            {"img_id": "x.qcow2.gz"},
            "the image is qcow2 within gzip (by its name, img_source_format or img_compression), which there is no "
            "place to unpack; unpack it, or give a raw image in gzip",
        ),
        (
            {"img_source_format": "vhd"},
            "img_source_format: 'vhd' is not a format of disk images; give one of raw, qcow2, vmdk, vhdx, vdi",
        ),
        (
            {"img_compression": "lzma"},
            "img_compression: 'lzma' is not a compression; give one of none, gzip, xz, zstd, bzip2",
        ),
        (
            {"img_id": "null", "img_source_format": "raw"},
            "img_source_format is given, but with img_id=null nothing is copied; leave one of them out",
        ),
        ({"img_signature": "base64:&"}, "img_signature: it is not base64"),
        ({"img_signature": "base64:"}, "img_signature: it is empty after base64:"),
        (
            {"img_signature": "x.sig"},
            "img_signature is given, but the node has no keys to check it with; "
            "name keyrings in signature_keyrings in the configuration",
        ),
        (
            {"img_passwd": ""},
            "img_passwd: it is empty; give a password, or leave the parameter out to keep the image's",
        ),
        (
            {"img_passwd": "a", "img_passwd_hash": "b"},
            "img_passwd and img_passwd_hash are both given; give one of them",
        ),
        ({"img_passwd_hash": "$a:b"}, "img_passwd_hash: the password hash has characters shadow(5) cannot hold"),
        (
            {"img_passwd_hash": "secret"},
            "img_passwd_hash: it is no hash of crypt(5), which begins with $; give one, * or ! to lock the password, "
            "or img_passwd",
        ),
        ({"img_passwd": "ä" * 256}, "img_passwd: it has 512 bytes, at most 511 are accepted"),
        ({"img_passwd": "\udcff"}, "img_passwd: it is not UTF-8"),
        (
            {"dns_nameservers": "fe80::1%eth0"},
            "dns_nameservers: 'fe80::1%eth0' has a scope, which holds on one machine only; leave out the % part",
        ),
        (
            {"img_properties": '{"OSFAMILY": "openbsd"}'},
            "OSFAMILY is openbsd, of which no image can be customised: its disklabels and file systems cannot be "
            'written; give EXCLUDE_ALL_TASKS="yes" to copy the image and leave it as it is',
        ),
        (
            {"img_properties": '{"OSFAMILY": "windows-legacy"}'},
            "OSFAMILY is windows-legacy, of which no image can be customised: Windows before Vista is not customised "
            'any more; give EXCLUDE_ALL_TASKS="yes" to copy the image and leave it as it is',
        ),
        (
            {"img_properties": '{"OSFAMILY": "windows"}', "img_passwd_hash": "$6$x"},
            "img_passwd_hash is given, but Windows takes no hashes; give img_passwd",
        ),
        (
            {"img_properties": '{"OSFAMILY": "windows", "CLOUD_INIT": "yes"}'},
            "CLOUD_INIT is given, but OSFAMILY is windows, for which there is no such task; leave it out",
        ),
        (
            {"img_properties": '{"OSFAMILY": "freebsd", "SWAP": "b"}'},
            "SWAP is given, but OSFAMILY is freebsd; only Linux gets swap space",
        ),
        (
            {"img_properties": '{"CUSTOM_TASK": "eA=="}'},
            "CUSTOM_TASK is given, but this node does not run such programs; leave it out, or set "
            "allow_custom_task=true in the configuration where those who may give OS parameters are trusted",
        ),
        ({"auth_keys": "nonsense"}, "auth_keys: line 1 is not a public key (TYPE KEY COMMENT, as in sshd(8))"),
        ({"auth_keys": "ssh-rsa A\x1b[2J"}, "auth_keys: line 1 has control characters"),
        (
            {"img_checksum": "md5:0"},
            "img_checksum: 'md5:0' is neither sha256: with 64 nor sha512: with 128 hex digits",
        ),
        (
            {"img_id": "null", "img_checksum": "sha256:" + "0" * 64},
            "img_checksum is given, but with img_id=null nothing is copied; leave one of them out",
        ),
        (
            {"dns_nameservers": "10.0.0.300"},
            "dns_nameservers: '10.0.0.300' is not an address",
        ),
        ({"dns_search": "-a.example"}, "dns_search: '-a.example' is not a domain name"),
        (
            {"cloud_userdata": "eA=="},
            "cloud_userdata is given, but the property CLOUD_INIT is not yes, so nothing would read it; give "
            'img_properties={"CLOUD_INIT": "yes"}, or leave it out',
        ),
        ({"cloud_userdata": "e A"}, "cloud_userdata: it is not base64"),
        (
            {"os_product_key": "12345-ABCDE"},
            "os_product_key: it is not five groups of five letters and digits with - between them",
        ),
        (
            {"os_answer_file": "file:///../x"},
            "os_answer_file: '/../x' contains '..', which would lead out of the image folder",
        ),
        ({"img_colour": "red"}, "the OS parameter 'img_colour' is not known"),
        ({"img_passwrd": "x"}, "the OS parameter 'img_passwrd' is not known; did you mean img_passwd?"),
        ({"img_personality": "{"}, "img_personality: the document is not JSON: "),
        ({"img_properties": "["}, "img_properties: the document is not JSON: "),
        (
            {"img_properties": '{"USERS": "ro:ot"}', "img_passwd": "x"},
            "img_passwd: user 'ro:ot' is not a user name",
        ),
        (
            {"img_properties": '{"USERS": "ro:ot"}'},
            "this cannot be asked of the helper: user 'ro:ot' is not a user name",
        ),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence(changed: dict[str, str], sentence: str) -> None:
    said = refusal(GOOD | changed)
    assert said == sentence if not sentence.endswith(" ") else said.startswith(sentence)
    assert "\n" not in said


@pytest.mark.parametrize("missing", ["img_id", "img_format"])
def test_what_is_required_is_asked_for_by_name(missing: str) -> None:
    assert refusal({k: v for k, v in GOOD.items() if k != missing}).startswith(f"{missing} is missing")


def test_no_secret_stands_in_a_sentence_or_in_the_parsed_parameters() -> None:
    said = refusal(GOOD | {"img_passwd_hash": "s3cret:hash"})
    assert "s3cret" not in said
    assert "correct horse" not in repr(parse_parameters(GOOD | {"img_passwd": "correct horse"}, tasks=ORDER))


def test_a_password_is_for_each_of_the_users() -> None:
    given = GOOD | {"img_passwd": "x", "img_properties": '{"users": "root  admin root"}'}
    passwords = parse_parameters(given, tasks=ORDER).passwords
    assert [(p.user, p.clear) for p in passwords] == [("root", Secret("x")), ("admin", Secret("x"))]


@pytest.mark.parametrize("name", ["config_url", "os_product_key", "os_answer_file", "cloud_userdata"])
def test_a_parameter_that_callers_of_snf_image_set_to_nothing_is_not_given(name: str) -> None:
    assert parse_parameters(GOOD | {name: ""}, tasks=ORDER) == parse_parameters(GOOD, tasks=ORDER)


@pytest.mark.parametrize(
    ("name", "source_format", "compression"),
    [
        ("debian.raw", SourceFormat.RAW, Compression.NONE),
        ("debian", SourceFormat.RAW, Compression.NONE),
        ("qcow2", SourceFormat.RAW, Compression.NONE),
        ("debian.img", SourceFormat.RAW, Compression.NONE),
        ("debian.qcow2", SourceFormat.QCOW2, Compression.NONE),
        ("Debian.QCOW2", SourceFormat.QCOW2, Compression.NONE),
        ("debian.vmdk", SourceFormat.VMDK, Compression.NONE),
        ("debian.vhdx", SourceFormat.VHDX, Compression.NONE),
        ("debian.vdi", SourceFormat.VDI, Compression.NONE),
        ("debian.gz", SourceFormat.RAW, Compression.GZIP),
        ("debian-12.1.raw.xz", SourceFormat.RAW, Compression.XZ),
        ("debian.raw.zst", SourceFormat.RAW, Compression.ZSTD),
        ("debian.img.bz2", SourceFormat.RAW, Compression.BZIP2),
        ("debian.gz.qcow2", SourceFormat.QCOW2, Compression.NONE),
        ("debian.qcow2.sig", SourceFormat.RAW, Compression.NONE),
    ],
)
def test_the_end_of_a_name_says_what_the_bytes_are(
    name: str, source_format: SourceFormat, compression: Compression
) -> None:
    assert encoding_of(name) == (source_format, compression)
    parsed = parse_parameters(GOOD | {"img_id": f"https://h.example/a.vdi/{name}?x=.xz"}, tasks=ORDER)
    assert (parsed.source_format, parsed.compression) == (source_format, compression)
    assert parsed.converts is ((source_format, compression) != (SourceFormat.RAW, Compression.NONE))


def test_what_is_given_beats_the_end_of_the_name() -> None:
    given = GOOD | {"img_id": "x.qcow2.gz", "img_source_format": "raw", "img_compression": "none"}
    parsed = parse_parameters(given, tasks=ORDER)
    assert not parsed.converts
    parsed = parse_parameters(GOOD | {"img_source_format": "vdi"}, tasks=ORDER)
    assert parsed.source_format is SourceFormat.VDI


def test_a_helper_that_cannot_convert_is_not_asked_to() -> None:
    with pytest.raises(Error, match=r"this helper VM cannot make one of it; give a raw image"):
        helper = HelperImage(
            folder=Path("/"), version="1", tasks=tuple(t for t in ORDER if t.phase is not Phase.SOURCE)
        )
        check_parameters(parse_parameters(GOOD | {"img_id": "x.qcow2"}, tasks=ORDER), Settings(), helper)


def test_a_signature_is_an_address_a_name_or_base64() -> None:
    def of(text: str) -> Signature | None:
        return parse_parameters(GOOD | {"img_signature": text}, tasks=ORDER).signature

    assert of("base64:aGVs\nbG8=") == Signature(content=b"hello")
    assert of("debian.raw.sig") == Signature(source=LocalImage(name="debian.raw.sig"))
    assert of("https://h.example/x.sig") == Signature(source=HttpImage(url="https://h.example/x.sig"))


def test_where_signatures_are_required_an_image_without_one_is_refused() -> None:
    keyrings = ("/etc/synnefo-light/images.gpg",)
    said = refusal(GOOD, signature_required=True, signature_keyrings=keyrings)
    assert said.startswith("img_signature is missing: this node deploys signed images only (signature_required)")
    settings = Settings(signature_required=True, signature_keyrings=keyrings)
    for good in (GOOD | {"img_signature": "x.sig"}, GOOD | {"img_id": "null"}):
        check_parameters(parse_parameters(good, tasks=ORDER), settings, HELPER)


@pytest.mark.parametrize(
    ("image_format", "family", "users"),
    [("extdump", OsFamily.LINUX, ("root",)), ("ntfsdump", OsFamily.WINDOWS, ("Administrator",))],
)
def test_a_dump_of_one_file_system_implies_its_family_and_partition(
    image_format: str, family: OsFamily, users: tuple[str, ...]
) -> None:
    parsed = parse_parameters(GOOD | {"img_format": image_format}, tasks=ORDER)
    assert parsed.image_format is ImageFormat(image_format)
    found = parsed.properties
    assert (found.os_family, found.root_partition, found.users) == (family, 1, users)


@pytest.mark.parametrize(
    ("properties", "sentence"),
    [
        ('{"OSFAMILY": "windows"}', "OSFAMILY is windows, but extdump is for linux; leave it out"),
        ('{"ROOT_PARTITION": 2}', "ROOT_PARTITION is 2, but an extdump has partition 1 only; leave it out"),
    ],
)
def test_what_contradicts_a_dump_of_one_file_system_is_refused(properties: str, sentence: str) -> None:
    said = refusal(GOOD | {"img_format": "extdump", "img_properties": properties})
    assert said == f"img_properties or inst_properties: {sentence}"


def test_no_query_of_an_address_is_shown() -> None:
    parsed = parse_parameters(GOOD | {"img_id": "https://h.example/x.raw?token=s3cret"}, tasks=ORDER)
    assert parsed.image == "https://h.example/x.raw?..."
    assert "s3cret" not in refusal(GOOD | {"img_id": "https://h.example:x/?token=s3cret"})


def test_without_strictness_unknown_properties_are_left_out_with_a_warning() -> None:
    given = GOOD | {"img_properties": '{"COLOUR": "red", "EXCLUDE_TASK_Paint": "yes", "CLOUD_INIT": "sure"}'}
    parsed = parse_parameters(given, tasks=ORDER, strict=False)
    assert parsed.properties.cloud_init
    assert [w.partition(";")[0] for w in parsed.warnings] == [
        "img_properties: the property 'COLOUR' is not known",
        "CLOUD_INIT is 'sure', which is neither yes nor no",
        "the task 'PAINT' is not known",
    ]


def test_inst_properties_override_img_properties() -> None:
    given = GOOD | {"img_properties": '{"USERS": "a", "ROOT_PARTITION": 1}', "inst_properties": '{"users": "b"}'}
    properties = parse_parameters(given, tasks=ORDER).properties
    assert (properties.users, properties.root_partition) == (("b",), 1)


def test_a_variant_holds_where_the_instance_is_silent() -> None:
    preset = {"img_format": "diskdump", "img_id": "default.raw", "dns_search": "a.example, b.example"}
    parsed = parse_parameters({"img_id": "mine.raw"}, preset=preset, tasks=ORDER)
    assert parsed.source == LocalImage(name="mine.raw")
    assert parsed.search == ("a.example", "b.example")


def test_a_variant_with_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ParameterError, match="'img_idd' is not known; did you mean img_id"):
        parse_parameters(GOOD, preset={"img_idd": "x"}, tasks=ORDER)


def test_a_checksum_is_taken_in_either_case() -> None:
    parsed = parse_parameters(GOOD | {"img_checksum": "SHA512:" + "AB" * 64}, tasks=ORDER)
    assert parsed.checksum == Checksum(algorithm="sha512", hexdigest="ab" * 64)


def test_keys_end_with_one_newline_and_may_have_options_and_comments() -> None:
    keys = '# mine\nfrom="10.0.0.0/8" ssh-ed25519 AAAA me\n\nssh-rsa BBBB\n\n'
    assert parse_parameters(GOOD | {"auth_keys": keys}, tasks=ORDER).auth_keys == keys.rstrip("\n") + "\n"


def test_files_that_do_not_fit_the_manifest_are_refused() -> None:
    huge = json.dumps([{"path": f"/{n}", "contents": "QUFB" * 699_060} for n in range(3)])
    assert "at most" in refusal(GOOD | {"img_personality": huge})


def test_all_of_snf_images_parameters_are_declared() -> None:
    theirs = {
        *("img_id", "img_format", "img_passwd", "img_passwd_hash", "auth_keys", "img_properties", "inst_properties"),
        *("img_personality", "config_url", "os_product_key", "os_answer_file", "cloud_userdata"),
    }
    ours = {"img_checksum", "img_signature", "img_source_format", "img_compression", "dns_nameservers", "dns_search"}
    assert {p.name for p in PARAMETERS} == theirs | ours


def test_parameters_list_is_what_the_table_renders() -> None:
    assert (TREE / "snf-image-host" / "os" / "parameters.list").read_text() == render_parameters_list()


def test_parameters_list_has_a_name_and_a_summary_on_each_line() -> None:
    """ganeti-os-interface(7): name and documentation, separated by white space; Ganeti splits at the first."""
    for line in render_parameters_list().splitlines():
        name, summary = line.split(None, 1)
        assert name.isidentifier() and summary.isprintable() and summary.isascii()


def test_another_family_than_linux_may_be_copied_as_it_is() -> None:
    given = GOOD | {"img_properties": '{"OSFAMILY": "windows", "EXCLUDE_ALL_TASKS": "yes"}'}
    parameters = parse_parameters(given, tasks=ORDER)
    check_parameters(parameters, Settings(), HELPER)
    assert parameters.properties.skip == {task.name for task in ORDER} - {"convert"}


@pytest.mark.parametrize("given", [{"img_passwd": "ä" * 255 + "x"}, {"img_passwd_hash": "*"}, {"img_passwd_hash": "!"}])
def test_passwords_just_within_the_rules_are_taken(given: dict[str, str]) -> None:
    parameters = parse_parameters(GOOD | given, tasks=ORDER)
    check_parameters(parameters, Settings(), HELPER)
    (password,) = parameters.passwords
    secret = password.clear or password.hashed
    assert secret is not None and [secret.reveal()] == [*given.values()]
