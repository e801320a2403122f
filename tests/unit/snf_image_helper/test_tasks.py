"""What each task plans for which image."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from snf_image_helper.actions import (
    Action,
    CheckFilesystem,
    GenerateHostKey,
    GrowFilesystem,
    MakeFolder,
    MakeSwap,
    MakeSwapFile,
    MountRoot,
    RemoveFile,
    Symlink,
    UmountRoot,
    Warn,
    WriteFile,
    WriteTable,
    describe,
)
from snf_image_helper.distribution import INCLUDED_LIMIT, accounts, group_ids, sshd_settings
from snf_image_helper.image import (
    Block,
    FilesystemKind,
    Image,
    ImageError,
    Place,
    RootPath,
    Skipped,
    SwapSpace,
)
from snf_image_helper.partitions import SWAP_MBR, Mbr, Partition
from snf_image_helper.tasks import TASKS
from snf_image_helper.tasks.hostname import render_hosts
from snf_image_helper.tasks.password import keys_path, render_keys, render_shadow

from tests.unit.snf_image_helper.fake_image import TODAY, FakeFiles, Link, fake_image, linux, manifest, mbr_sector

PASSWD = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\nold:OLDHASH:5:5::/:/bin/sh\n"
SHADOW = "root:*:19000:0:99999:7:::\nuser:!:19000:1:90:7:3:4:\n"


def planned(task: str, image: Image, **fields: object) -> list[Action]:
    return list(TASKS[task].plan(image, manifest(**fields)))


def written(actions: list[Action]) -> dict[str, str]:
    return {str(a.path): a.content.decode("utf-8", "surrogateescape") for a in actions if isinstance(a, WriteFile)}


def mbr(*partitions: Partition) -> Mbr:
    records = [(p.kind, p.start, p.sectors) if isinstance(p.kind, int) else None for p in partitions]
    return Mbr(partitions=partitions, extended=None, records=((0, mbr_sector(*records)),))


# --- disk


def test_partition_table_is_skipped_without_one() -> None:
    with pytest.raises(Skipped, match="whole disk"):
        planned("partition_table", fake_image())


def test_partition_table_writes_nothing_when_the_disk_is_full() -> None:
    root = linux(1, 2048, 131072 - 2048)
    assert planned("partition_table", fake_image(table=mbr(root), partition=root)) == []


def test_partition_table_grows_the_root() -> None:
    root = linux(1, 2048, 20480)
    (action,) = planned("partition_table", fake_image(table=mbr(root), partition=root))
    assert isinstance(action, WriteTable) and [w.sector for w in action.writes] == [0]


def test_partition_table_warns_when_another_partition_is_in_the_way() -> None:
    root, other = linux(1, 2048, 20480), linux(2, 24576, 2048)
    (action,) = planned("partition_table", fake_image(table=mbr(root, other), partition=root))
    assert action == Warn(text="partition 1 (root) was not grown, because partition 2 is behind it")
    empty = replace(mbr(root), extended=Partition(number=2, start=24576, sectors=2048, kind=0x05, where=0))
    assert planned("partition_table", fake_image(table=empty, partition=root)) == [action]


@pytest.mark.parametrize("kind", [FilesystemKind.EXT2, FilesystemKind.EXT3, FilesystemKind.EXT4, FilesystemKind.F2FS])
@pytest.mark.parametrize(("size", "grows"), [(48, True), (64, False)])
def test_ext_and_f2fs_are_checked_and_grown_if_there_is_room(kind: FilesystemKind, size: int, grows: bool) -> None:
    actions = planned("filesystem_check_grow", fake_image(kind=kind, filesystem_mib=size))
    grown: list[Action] = [GrowFilesystem(place=Place(), kind=kind)] if grows else []
    assert actions == [CheckFilesystem(place=Place(), kind=kind), *grown]


@pytest.mark.parametrize("kind", [FilesystemKind.XFS, FilesystemKind.BTRFS, FilesystemKind.VFAT])
def test_other_filesystems_are_not_touched(kind: FilesystemKind) -> None:
    with pytest.raises(Skipped, match=f"is {kind.value}"):
        planned("filesystem_check_grow", fake_image(kind=kind))


def test_mount_names_the_type_that_was_seen() -> None:
    root = linux(3, 2048, 131072 - 2048)
    image = fake_image(table=mbr(root), partition=root, kind=FilesystemKind.XFS)
    assert planned("mount", image) == [MountRoot(place=Place(partition=3), kind=FilesystemKind.XFS)]


def test_umount_umounts() -> None:
    assert planned("umount", fake_image()) == [UmountRoot()]


# --- names and identities


@pytest.mark.parametrize(
    ("hosts", "hostname", "result"),
    [
        (None, "web1", "127.0.0.1\tlocalhost\n127.0.1.1\tweb1\n::1\tlocalhost\n"),
        ("127.0.0.1 localhost\n", "web1.example.org", "127.0.0.1 localhost\n127.0.1.1\tweb1.example.org web1\n"),
        ("127.0.1.1 image\n::1 x", "web1", "127.0.1.1\tweb1\n::1 x\n"),
        ("# a\n127.0.1.1 image\n127.0.1.1 again\n", "web1", "# a\n127.0.1.1\tweb1\n"),
        ("", "web1", "127.0.1.1\tweb1\n"),
        ("10.0.0.1 gw\n", "web1", "10.0.0.1 gw\n127.0.1.1\tweb1\n"),
        ("127.0.1.1\tweb1\n", "web1", "127.0.1.1\tweb1\n"),
    ],
)
def test_hosts_has_one_line_for_the_hosts_own_name(hosts: str | None, hostname: str, result: str) -> None:
    assert render_hosts(hosts, hostname) == result


def test_hosts_keeps_bytes_that_are_not_text() -> None:
    files = written(planned("hostname", fake_image({"etc/hosts": b"\xff\xfe 127.0.1.1\n"})))
    assert files["/etc/hostname"] == "web1.example.org\n"
    assert files["/etc/hosts"].encode("utf-8", "surrogateescape").startswith(b"\xff\xfe 127.0.1.1\n")


def test_hosts_that_are_too_large_are_left_with_a_warning_and_the_name_is_written() -> None:
    actions = planned("hostname", fake_image({"etc/hosts": "0.0.0.0 advertisements.example\n" * 40_000}))
    assert list(written(actions)) == ["/etc/hostname"]
    (warning,) = (a for a in actions if isinstance(a, Warn))
    assert "/etc/hosts of the image has over 1048576 bytes" in warning.text


SYSTEMD: dict[str, str | bytes | Link | None] = {"usr/lib/systemd/systemd": ""}


def test_machine_id_is_empty_with_systemd_and_dbus_links_to_it() -> None:
    actions = planned(
        "machine_id", fake_image({**SYSTEMD, "etc/machine-id": "abc\n", "var/lib/dbus/machine-id": "abc\n"})
    )
    assert actions == [
        WriteFile(path=RootPath("etc/machine-id"), content=b"", mode=0o444),
        Symlink(path=RootPath("var/lib/dbus/machine-id"), target="/etc/machine-id"),
    ]


def test_machine_id_leaves_a_link_of_dbus_alone() -> None:
    tree = {**SYSTEMD, "var/lib/dbus/machine-id": Link("/etc/machine-id")}
    assert written(planned("machine_id", fake_image(tree))) == {"/etc/machine-id": ""}
    assert len(planned("machine_id", fake_image(tree))) == 1


@pytest.mark.parametrize("init", ["usr/lib/systemd/systemd", "sbin/openrc-init"])
def test_machine_id_that_links_to_that_of_dbus_becomes_a_file(init: str) -> None:
    tree: dict[str, str | bytes | Link | None] = {init: ""}
    tree |= {"etc/machine-id": Link("/var/lib/dbus/machine-id"), "var/lib/dbus/machine-id": "abc\n"}
    actions = planned("machine_id", fake_image(tree))
    assert actions[0] == RemoveFile(path=RootPath("etc/machine-id"))
    assert isinstance(actions[1], WriteFile) and actions[1].path == "/etc/machine-id"
    assert actions[-1] == Symlink(path=RootPath("var/lib/dbus/machine-id"), target="/etc/machine-id")


def test_machine_id_without_systemd_is_made_of_the_nonce() -> None:
    first = written(planned("machine_id", fake_image({"etc/machine-id": "abc"})))["/etc/machine-id"]
    other = written(planned("machine_id", fake_image({"etc/machine-id": "abc"}), nonce="f" * 32))["/etc/machine-id"]
    assert len(first.strip()) == 32 and first != other


def test_machine_id_is_skipped_where_nobody_uses_one() -> None:
    with pytest.raises(Skipped, match="no machine id"):
        planned("machine_id", fake_image())


SSH: dict[str, str | bytes | Link | None] = {"etc/ssh/sshd_config": "", "usr/sbin/sshd": ""}


def test_host_keys_of_the_kinds_there_were_are_made_anew() -> None:
    tree = {**SSH, "etc/ssh/ssh_host_rsa_key": "x", "etc/ssh/ssh_host_rsa_key.pub": "x", "etc/ssh/moduli": "x"}
    actions = planned("ssh_host_keys", fake_image(tree))
    assert actions == [
        RemoveFile(path=RootPath("etc/ssh/ssh_host_rsa_key")),
        RemoveFile(path=RootPath("etc/ssh/ssh_host_rsa_key.pub")),
        GenerateHostKey(kind="rsa", path=RootPath("etc/ssh/ssh_host_rsa_key"), comment="root@web1.example.org"),
    ]


@pytest.mark.parametrize(
    ("had", "config", "made"),
    [
        ((), "", ["ed25519", "ecdsa"]),
        (("ecdsa", "ed25519", "rsa"), "", ["ed25519", "ecdsa"]),
        (("rsa",), "", ["rsa"]),
        (("ed25519", "rsa"), "HostKey /etc/ssh/ssh_host_rsa_key\n", ["ed25519", "rsa"]),
    ],
)
def test_an_rsa_host_key_is_made_only_where_nothing_else_serves(
    had: tuple[str, ...], config: str, made: list[str]
) -> None:
    tree = {"etc/ssh/sshd_config": config, **{f"etc/ssh/ssh_host_{kind}_key": "x" for kind in had}}
    kinds = [a.kind for a in planned("ssh_host_keys", fake_image(tree)) if isinstance(a, GenerateHostKey)]
    assert kinds == made


def test_host_keys_are_left_to_a_unit_that_makes_them_at_boot() -> None:
    tree = {**SSH, "etc/ssh/ssh_host_rsa_key": "x", "usr/lib/systemd/system/sshd-keygen@.service": ""}
    assert planned("ssh_host_keys", fake_image(tree)) == [RemoveFile(path=RootPath("etc/ssh/ssh_host_rsa_key"))]


def test_host_keys_are_made_where_a_unit_makes_them_on_a_first_boot_only() -> None:
    unit = "[Unit]\nConditionFirstBoot=yes\n\n[Service]\nExecStart=ssh-keygen -A\n"
    tree = {**SSH, "etc/ssh/ssh_host_ed25519_key": "x", "usr/lib/systemd/system/sshd-keygen.service": unit}
    actions = planned("ssh_host_keys", fake_image(tree))
    assert [a.kind for a in actions if isinstance(a, GenerateHostKey)] == ["ed25519"]


def test_host_keys_that_sshd_keeps_elsewhere_are_removed_with_a_warning() -> None:
    config = "HostKey /var/keys/one\nHostKey ../two\nMatch User x\nHostKey /var/keys/three\n"
    actions = planned("ssh_host_keys", fake_image({"etc/ssh/sshd_config": config}))
    assert RemoveFile(path=RootPath("var/keys/one")) in actions
    assert [a for a in actions if isinstance(a, RemoveFile) and "three" in a.path] == []
    assert any(isinstance(a, Warn) for a in actions)


def test_host_keys_are_skipped_without_a_server() -> None:
    with pytest.raises(Skipped, match="no SSH server"):
        planned("ssh_host_keys", fake_image())


# --- users

HASH = "$6$salt$hash"
USERS: dict[str, str | bytes | Link | None] = {"etc/passwd": PASSWD, "etc/shadow": SHADOW, "home/user": None}


@pytest.mark.parametrize(
    ("hashes", "result"),
    [
        ({"root": HASH}, f"root:{HASH}:{TODAY}:0:99999:7:::\nuser:!:19000:1:90:7:3:4:\n"),
        ({"user": HASH}, f"root:*:19000:0:99999:7:::\nuser:{HASH}:{TODAY}:1:90:7:3:4:\n"),
        ({"new": HASH}, f"{SHADOW}new:{HASH}:{TODAY}:0:99999:7:::\n"),
    ],
)
def test_a_password_changes_its_field_and_the_day_and_nothing_else(hashes: dict[str, str], result: str) -> None:
    assert render_shadow(SHADOW, hashes, TODAY) == result


def test_a_password_that_stood_in_passwd_moves_to_shadow() -> None:
    files = written(planned("password", fake_image(USERS), passwords=[{"user": "old", "hashed": HASH}]))
    assert files["/etc/passwd"] == PASSWD.replace("old:OLDHASH:", "old:x:")
    assert files["/etc/shadow"].endswith(f"old:{HASH}:{TODAY}:0:99999:7:::\n")


def test_a_user_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ImageError, match=r"user nobody is not in .* which has old, root, user"):
        planned("password", fake_image(USERS), passwords=[{"user": "nobody", "hashed": HASH}])
    with pytest.raises(ImageError, match="user nobody"):
        planned("password", fake_image(USERS), users=["nobody"], authorized_keys="ssh-ed25519 A")


def test_only_a_newline_ends_a_line_of_passwd() -> None:
    found = accounts(FakeFiles({"etc/passwd": "a:x:5:5:A\u2028B\x0cC:/a:/bin/sh\nb:x:6:6::/:/bin/sh\r\n"}))
    assert {name: account.uid for name, account in found.items()} == {"a": 5, "b": 6}


def test_without_shadow_no_password_can_be_set() -> None:
    with pytest.raises(ImageError, match="no /etc/shadow"):
        planned("password", fake_image({"etc/passwd": PASSWD}), passwords=[{"user": "root", "hashed": HASH}])


def test_keys_get_a_folder_of_their_user() -> None:
    actions = planned("password", fake_image(USERS), users=["user"], authorized_keys="ssh-ed25519 A b")
    assert actions == [
        MakeFolder(path=RootPath("home/user/.ssh"), mode=0o700, owner=(1000, 1000)),
        WriteFile(
            path=RootPath("home/user/.ssh/authorized_keys"),
            content=b"ssh-ed25519 A b\n",
            mode=0o600,
            owner=(1000, 1000),
        ),
    ]


@pytest.mark.parametrize(
    ("old", "keys", "result"),
    [
        ("", "a\nb\n", "a\nb\n"),
        ("a", "a\nb", "a\nb\n"),
        ("# mine\nb\n", "a\nb\na\n\n", "# mine\nb\na\n"),
        ("a\nb\n", "b\na", "a\nb\n"),
    ],
)
def test_each_key_is_there_once(old: str, keys: str, result: str) -> None:
    assert render_keys(old, keys) == result
    assert render_keys(result, keys) == result


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        (".ssh/authorized_keys", "/home/user/.ssh/authorized_keys"),
        ("%h/.ssh/keys", "/home/user/.ssh/keys"),
        ("/etc/ssh/keys/%u", "/etc/ssh/keys/user"),
        ("/k/%U%%h", "/k/1000%h"),
        ("%x", "/home/user/%x"),
    ],
)
def test_sshds_tokens_are_expanded_once(setting: str, path: str) -> None:
    from snf_image_helper.distribution import accounts

    user = accounts(fake_image(USERS).files)["user"]
    assert keys_path(setting, user) == path


def test_the_first_authorizedkeysfile_counts_also_from_an_included_file() -> None:
    tree = {
        **USERS,
        "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nAuthorizedKeysFile .ssh/second\n",
        "etc/ssh/sshd_config.d/a.conf": "authorizedkeysfile /keys/%u .ssh/other\n",
        "keys/x": "",
    }
    assert set(written(planned("password", fake_image(tree), authorized_keys="k"))) == {"/keys/root"}


def test_what_sshd_config_includes_is_bounded() -> None:
    tree: dict[str, str | bytes | Link | None] = {
        **USERS,
        # Eight stars against this name would keep a regular expression busy for minutes.
        "etc/ssh/sshd_config": f"Include d/{'*a' * 8}b\nInclude d/\nInclude /\n" + "Include d/*.c\n" * 99,
        "etc/ssh/d/" + "a" * 90: "AuthorizedKeysFile /wrong\n",
        "etc/ssh/d/folder.c": None,
        "etc/ssh/d/x.c": "AuthorizedKeysFile /keys/%u\n",
        "keys/x": "",
    }
    files = FakeFiles(tree)
    assert 0 < len(sshd_settings(files, "AuthorizedKeysFile")) <= INCLUDED_LIMIT
    assert set(sshd_settings(files, "AuthorizedKeysFile")) == {"/keys/%u"}


@pytest.mark.parametrize("number", ["4294967295", "9999999999", "-1", "x", "\u0663"])
def test_a_number_that_chown_cannot_take_makes_no_user_and_no_group(number: str) -> None:
    tree = {"etc/passwd": f"a:x:{number}:0::/:/bin/sh\nb:x:0:{number}::/:/bin/sh\nc:x:0:4294967294::/:/bin/sh\n"}
    files = FakeFiles({**tree, "etc/group": f"a:x:{number}:\nc:x:4294967294:\n"})
    assert set(accounts(files)) == {"c"} and group_ids(files) == {"c": 4294967294}


def test_a_home_that_leads_upwards_is_refused() -> None:
    tree = {"etc/passwd": "root:x:0:0::/root/../../etc:/bin/sh\n"}
    with pytest.raises(ImageError, match=r"holds '\.\.'"):
        planned("password", fake_image(tree), authorized_keys="k")


# --- swap and files


def test_swap_on_a_partition_gets_a_line_by_uuid() -> None:
    root, swap = linux(1, 2048, 20480), Partition(number=2, start=24576, sectors=2048, kind=SWAP_MBR, where=0)
    image = fake_image({"etc/fstab": "LABEL=root / ext4 defaults 0 1"}, table=mbr(root, swap), partition=root)
    make, write = planned("swap", image, swap={"partition": 2, "size_mib": 1})
    assert isinstance(make, MakeSwap) and (make.disk, make.partition) == (0, 2)
    assert isinstance(write, WriteFile)
    assert write.content.decode() == f"LABEL=root / ext4 defaults 0 1\nUUID={make.uuid} none swap sw 0 0\n"
    again = fake_image({"etc/fstab": write.content}, table=mbr(root, swap), partition=root)
    assert planned("swap", again, swap={"partition": 2, "size_mib": 1}) == [make]
    made = Block(place=Place(partition=2), size=1 << 20, content=SwapSpace(uuid=make.uuid, label=""), partition=swap)
    again = replace(again, blocks=(made,))
    assert planned("swap", again, swap={"partition": 2, "size_mib": 1}, nonce="f" * 32) == [make]


def test_swap_on_a_disk_of_its_own_has_one_line_in_fstab_however_often_it_is_made() -> None:
    disks = [{"index": 0, "size": 1 << 26}, {"index": 1, "size": 1 << 24}]
    make, write = planned("swap", fake_image(), swap={"disk": 1}, disks=disks)
    assert isinstance(make, MakeSwap) and (make.disk, make.partition, make.label) == (1, None, "snf-image-swap")
    assert isinstance(write, WriteFile) and write.content == b"LABEL=snf-image-swap none swap sw,nofail 0 0\n"
    (again,) = planned("swap", fake_image({"etc/fstab": write.content}), swap={"disk": 1}, disks=disks, nonce="f" * 32)
    assert isinstance(again, MakeSwap) and again.uuid != make.uuid


@pytest.mark.parametrize("swap", [{"disk": 0}, {"disk": 5}, {"partition": 1, "size_mib": 1}])
def test_swap_never_overwrites_the_image(swap: dict[str, int]) -> None:
    root = linux(1, 2048, 20480)
    with pytest.raises(ImageError):
        planned("swap", fake_image(table=mbr(root), partition=root), swap=swap)


@pytest.mark.parametrize(
    ("kind", "in_place"), [(FilesystemKind.EXT4, False), (FilesystemKind.XFS, False), (FilesystemKind.BTRFS, True)]
)
def test_swap_in_a_file_gets_a_line_by_its_path(kind: FilesystemKind, in_place: bool) -> None:
    make, write = planned("swap", fake_image({"etc/fstab": "/dev/x / ext4"}, kind=kind), swap={"file_mib": 3})
    assert isinstance(make, MakeSwapFile) and isinstance(write, WriteFile)
    assert (make.path, make.size, make.in_place) == (RootPath("swapfile"), 3 << 20, in_place)
    assert write.content == b"/dev/x / ext4\n/swapfile none swap sw 0 0\n"
    again = fake_image({"etc/fstab": write.content}, kind=kind)
    assert planned("swap", again, swap={"file_mib": 3}) == [make]


def test_swap_in_a_file_is_refused_where_the_kernel_cannot_use_one() -> None:
    with pytest.raises(ImageError, match="cannot swap to one on vfat; use a disk"):
        planned("swap", fake_image(kind=FilesystemKind.VFAT), swap={"file_mib": 3})


FILE = {"path": "/a/b/c", "contents": base64.b64encode(b"hello").decode()}


def test_injected_files_get_their_folders_and_owners() -> None:
    tree = {**USERS, "etc/group": "root:x:0:\nadm:x:4:\n", "a": None}
    one = {**FILE, "owner": "user", "group": "adm", "mode": 0o640}
    two = {**FILE, "path": "/a/b/d", "owner": "7", "group": "8"}
    assert planned("personality", fake_image(tree), files=[one, two]) == [
        MakeFolder(path=RootPath("a/b"), mode=0o755, owner=(0, 0)),
        WriteFile(path=RootPath("a/b/c"), content=b"hello", mode=0o640, owner=(1000, 4)),
        WriteFile(path=RootPath("a/b/d"), content=b"hello", mode=0o440, owner=(7, 8)),
    ]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({**FILE, "owner": "stranger"}, "user stranger"),
        ({**FILE, "group": "strangers"}, "group strangers"),
        ({**FILE, "contents": "not base64!"}, "not base64"),
        ({**FILE, "path": "/etc/passwd/x"}, "/etc/passwd, which is not a folder"),
    ],
)
def test_a_file_that_cannot_be_injected_is_named(file: dict[str, object], says: str) -> None:
    tree = {"etc/passwd": PASSWD, "etc/group": "root:x:0:\n"}
    with pytest.raises(ImageError, match=says):
        planned("personality", fake_image(tree), files=[file])


# --- all of them


def test_nothing_asked_for_is_nothing_done() -> None:
    for task in ("network", "password", "personality", "swap"):
        assert planned(task, fake_image(USERS)) == []


def test_no_description_of_an_action_holds_a_secret() -> None:
    files = [{**FILE, "path": "/secret/place"}]
    tree = {**USERS, "etc/group": "root:x:0:\n"}
    plan = planned("password", fake_image(tree), passwords=[{"user": "root", "hashed": HASH}], authorized_keys="KEYKEY")
    plan += planned("personality", fake_image(tree), files=files)
    assert len(plan) >= 4
    shown = "".join(describe(action) + repr(action) for action in plan)
    assert HASH not in shown and "KEYKEY" not in shown and "hello" not in shown
