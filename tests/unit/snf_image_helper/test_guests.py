"""What differs from one distribution to the other, besides the network: names, host keys, SELinux, users."""

from __future__ import annotations

import pytest
from snf_image_helper.actions import GenerateHostKey, Warn, WriteFile
from snf_image_helper.image import ImageError, Skipped
from snf_image_helper.tasks import TASKS
from snf_image_helper.tasks.selinux import selinux_mode

from tests.guests.trees import ALPINE_3_20, ARCH, DEBIAN_12, GENTOO, GUESTS, Tree
from tests.unit.snf_image_helper.fake_image import fake_image, manifest


def written(task: str, tree: Tree, **fields: object) -> dict[str, str]:
    actions = TASKS[task].plan(fake_image(tree), manifest(**fields))
    return {str(a.path): a.content.decode() for a in actions if isinstance(a, WriteFile)}


@pytest.mark.parametrize("guest", GUESTS)
def test_every_guest_gets_its_name(guest: str) -> None:
    files = written("hostname", GUESTS[guest])
    assert files["/etc/hostname"] == "web1.example.org\n"
    assert "127.0.1.1\tweb1.example.org web1\n" in files["/etc/hosts"]


@pytest.mark.parametrize(
    ("extra", "path", "content"),
    [
        ({"etc/HOSTNAME": "old\n"}, "/etc/HOSTNAME", "web1.example.org\n"),
        (
            {"etc/sysconfig/network": "NETWORKING=yes\nHOSTNAME=old\n"},
            "/etc/sysconfig/network",
            'NETWORKING=yes\nHOSTNAME="web1.example.org"\n',
        ),
        (
            {"etc/conf.d/hostname": '# name\nhostname="old"\n'},
            "/etc/conf.d/hostname",
            '# name\nhostname="web1.example.org"\n',
        ),
    ],
)
def test_older_places_of_the_name_are_kept_in_step(extra: Tree, path: str, content: str) -> None:
    assert written("hostname", {**DEBIAN_12, **extra})[path] == content


def test_older_places_that_are_not_there_are_not_made() -> None:
    assert set(written("hostname", {**DEBIAN_12, "etc/sysconfig/network": "# none\n"})) == {
        "/etc/hostname",
        "/etc/hosts",
    }


MAKE_THEIR_OWN_KEYS = {
    *("fedora-41", "rhel-8", "rhel-9", "rhel-10", "opensuse-15.6", "opensuse-16", "arch", "alpine-3.20", "gentoo")
}


@pytest.mark.parametrize("guest", GUESTS)
def test_host_keys_are_made_for_guests_that_make_none_at_boot(guest: str) -> None:
    actions = TASKS["ssh_host_keys"].plan(fake_image(GUESTS[guest]), manifest())
    assert any(isinstance(a, GenerateHostKey) for a in actions) is (guest not in MAKE_THEIR_OWN_KEYS)


def test_an_init_script_that_makes_no_keys_is_not_relied_on() -> None:
    tree: Tree = {**ALPINE_3_20, "etc/init.d/sshd": "#!/sbin/openrc-run\n"}
    actions = TASKS["ssh_host_keys"].plan(fake_image(tree), manifest())
    assert any(isinstance(a, GenerateHostKey) for a in actions)


RELABELLED = {
    "fedora-41": {"/.autorelabel"},
    "rhel-8": {"/.autorelabel"},
    "rhel-9": {"/.autorelabel"},
    "rhel-10": {"/.autorelabel"},
    "opensuse-16": {"/.autorelabel", "/etc/selinux/.autorelabel"},
}


@pytest.mark.parametrize("guest", GUESTS)
def test_guests_with_selinux_relabel_themselves(guest: str) -> None:
    if guest in RELABELLED:
        assert set(written("selinux", GUESTS[guest])) == RELABELLED[guest]
    else:
        with pytest.raises(Skipped, match="does not use SELinux"):
            TASKS["selinux"].plan(fake_image(GUESTS[guest]), manifest())


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ("SELINUX=enforcing\n", "enforcing"),
        ("# SELINUX=enforcing\nSELINUX = Permissive\nSELINUXTYPE=targeted\n", "permissive"),
        ("SELINUX=enforcing\nSELINUX=disabled\n", "disabled"),
        ("", None),
    ],
)
def test_the_mode_of_selinux_is_read(config: str, mode: str | None) -> None:
    assert selinux_mode(fake_image({"etc/selinux/config": config}).files) == mode


def test_disabled_selinux_needs_no_labels() -> None:
    with pytest.raises(Skipped, match="SELinux is disabled"):
        TASKS["selinux"].plan(fake_image({"etc/selinux/config": "SELINUX=disabled\n"}), manifest())


@pytest.mark.parametrize("guest", GUESTS)
def test_every_guest_gets_a_password_in_its_own_line(guest: str) -> None:
    files = written("password", GUESTS[guest], passwords=[{"user": "root", "hashed": "$6$a$b"}])
    line = files["/etc/shadow"].splitlines()[0]
    before = str(GUESTS[guest]["etc/shadow"]).splitlines()[0].split(":")
    assert line.split(":") == ["root", "$6$a$b", "20000", *before[3:]]


@pytest.mark.parametrize("hashed", ["$y$j9T$salt$hash", "$7$salt$hash", "$sha1$1$salt$hash"])
def test_a_hash_that_musl_does_not_know_is_refused(hashed: str) -> None:
    password = [{"user": "root", "hashed": hashed}]
    with pytest.raises(ImageError, match="use PASSWD_HASHING_METHOD=sha512") as refused:
        written("password", ALPINE_3_20, passwords=password)
    assert hashed not in str(refused.value)
    assert hashed in written("password", ARCH, passwords=password)["/etc/shadow"]


def test_a_user_whose_shell_lets_nobody_in_is_warned_of() -> None:
    tree: Tree = {**GENTOO, "etc/passwd": "www:x:80:80::/var/www:/sbin/nologin\n"}
    actions = TASKS["password"].plan(fake_image(tree), manifest(passwords=[{"user": "www", "hashed": "$6$a$b"}]))
    assert actions[0] == Warn(text="user www gets a password, but its shell /sbin/nologin lets nobody in")
