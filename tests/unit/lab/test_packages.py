"""What is installed on the host, what is built, and what the caches are keyed by."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_lab import host_packages, packages, roots, state
from snf_lab.apt import AptSettings

from tests.fake_runner import Answer, FakeRunner

CONTROL = """\
Source: synnefo-light
Build-Depends:
 debhelper-compat (= 13),
 dh-python,
 python3:any <!nocheck>, squashfs-tools [amd64] | other,
Standards-Version: 4.6.2

Package: a
"""
SETTINGS = AptSettings(
    mirror="http://mirror.example/debian",
    security="http://security.example",
    options=('Acquire::Retries "3";',),
    environment={},
)


def test_build_depends_are_names_that_apt_can_install() -> None:
    assert host_packages.parse_build_depends(CONTROL) == ("debhelper", "dh-python", "python3", "squashfs-tools")
    assert host_packages.parse_build_depends("Source: x\n") == ()


def test_every_package_on_the_host_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian" / "control").write_text(CONTROL)
    wanted = host_packages.wanted(tmp_path)
    assert all(package.reason for package in wanted)
    assert [p.name for p in wanted] == sorted({p.name for p in wanted})
    assert "squashfs-tools" in {p.name for p in wanted}


def test_a_package_that_was_removed_but_left_its_configuration_is_missing() -> None:
    text = b"installed git\nconfig-files fdisk\n"
    dpkg = FakeRunner(Answer(returncode=1, stdout=text, stderr=b"no packages found matching x"))
    asked = [host_packages.HostPackage(name=name, reason="r") for name in ("git", "fdisk", "x")]
    assert [p.name for p in host_packages.missing(asked, dpkg)] == ["fdisk", "x"]


def test_installing_on_the_host_takes_no_recommended_packages() -> None:
    words = host_packages.plan_install([host_packages.HostPackage(name="git", reason="r")])
    assert words == ["apt-get", "install", "--yes", "--no-install-recommends", "git"]


def test_a_roots_name_changes_with_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    release = state.RELEASES["bookworm"]
    before = roots.root_name(release)
    assert before == roots.root_name(release)
    assert before != roots.root_name(state.RELEASES["trixie"])
    monkeypatch.setattr(roots, "PACKAGES", (*roots.PACKAGES, "vim"))
    assert roots.root_name(release) != before


def test_the_cached_root_has_nothing_that_must_come_with_our_packages() -> None:
    """`ganeti` brings psutil; requests and pyudev would hide a missing Depends."""
    assert {"python3-requests", "python3-pyudev", "python3-psutil"}.isdisjoint(roots.PACKAGES)


def test_a_root_is_made_from_where_the_hosts_apt_gets_its_packages() -> None:
    words = roots.plan_mmdebstrap(state.RELEASES["trixie"], Path("/t"), SETTINGS)
    assert words[-5:] == [
        "trixie",
        Path("/t"),
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://security.example trixie-security main",
    ]
    assert '--aptopt=Acquire::Retries "3";' in words
    bare = AptSettings(mirror=None, options=(), environment={})
    assert roots.plan_mmdebstrap(state.RELEASES["trixie"], Path("/t"), bare)[-1] == Path("/t")


def test_tests_and_the_lab_do_not_make_packages_anew() -> None:
    listed = b"debian/control\0lab\0tests/unit/x.py\0synnefo_light/run.py\0labels.py\0.ci/run\0debian/control\0"
    assert packages.parse_file_list(listed) == ("debian/control", "labels.py", "synnefo_light/run.py")


def test_the_trees_hash_sees_content_name_and_mode() -> None:
    file = packages.TreeFile(path="a", mode=0o644, digest=b"1")
    others = [
        packages.TreeFile(path="b", mode=0o644, digest=b"1"),
        packages.TreeFile(path="a", mode=0o755, digest=b"1"),
        packages.TreeFile(path="a", mode=0o644, digest=b"2"),
    ]
    hashes = {packages.tree_hash([f]) for f in (file, *others)}
    assert len(hashes) == 4


def test_parts_of_a_hash_do_not_run_into_each_other() -> None:
    assert state.content_hash("ab", "c") != state.content_hash("a", "bc")


def test_the_closure_is_resolved_against_what_the_root_has_installed() -> None:
    conf = packages.render_apt_conf(Path("/closure"), Path("/cache/root"), SETTINGS)
    assert 'Dir::State::status "/cache/root/var/lib/dpkg/status";' in conf
    assert 'Acquire::Retries "3";' in conf


@pytest.mark.parametrize(
    ("archive", "first"),
    [
        (["deb http://m.example/debian trixie main"], "deb http://m.example/debian trixie main"),
        ([], "deb http://made.example trixie main"),
    ],
)
def test_the_closure_comes_from_the_hosts_mirror_or_the_roots(archive: list[str], first: str) -> None:
    made_from = "deb http://made.example trixie main\n"
    text = packages.render_sources(archive, made_from, Path("/ours"))
    assert text.splitlines() == [first, "deb [trusted=yes] file:/ours ./"]


def test_the_developer_option_binds_the_library_and_the_rooms(tmp_path: Path) -> None:
    for package in ("synnefo_light", "snf-image-host/snf_image_host", "tests/lab/snf_lab"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    found = [str(p.relative_to(tmp_path)) for p in packages.python_packages(tmp_path)]
    assert found == ["snf-image-host/snf_image_host", "synnefo_light"]
