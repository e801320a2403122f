"""The host's apt settings, read as apt reads them."""

from __future__ import annotations

from snf_lab.apt import AptSettings, find_mirror, parse_codename, parse_deb822, parse_one_line, parse_options

DEB822 = """\
# comment
Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Types: deb deb-src
# inside
URIs: http://mirror.example/debian http://second.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def test_the_mirror_is_the_one_that_carries_the_hosts_release() -> None:
    assert find_mirror(parse_deb822(DEB822), "bookworm") == "http://mirror.example/debian"


def test_one_line_sources_say_the_same() -> None:
    text = (
        "# deb http://no.example/debian bookworm main\n"
        "deb [signed-by=/k.gpg arch=amd64] https://other.example/apt stable main\n"
        "deb-src http://src.example/debian bookworm main\n"
        "deb [ trusted=yes ] http://mirror.example/debian bookworm main contrib\n"
    )
    assert find_mirror(parse_one_line(text), "bookworm") == "http://mirror.example/debian"


def test_a_disabled_source_is_none() -> None:
    stanzas = parse_deb822("Enabled: no\nTypes: deb\nURIs: http://m.example\nSuites: bookworm\nComponents: main\n")
    assert find_mirror(stanzas, "bookworm") is None


def test_a_host_that_is_not_debian_leaves_the_choice_to_the_tools() -> None:
    assert find_mirror(parse_deb822(DEB822), "noble") is None


def test_proxy_and_check_settings_are_carried_over_and_nothing_else() -> None:
    dump = (
        'APT::Architecture "amd64";\nAcquire "";\nAcquire::http "";\nAcquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::Check-Valid-Until "false";\nAcquire::Languages "";\nDPkg::Post-Invoke:: "rm -rf /";\n'
    )
    assert parse_options(dump) == (
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::Check-Valid-Until "false";',
    )


def test_the_codename_is_read_with_and_without_quotes() -> None:
    assert parse_codename('PRETTY_NAME="Debian"\nVERSION_CODENAME=bookworm\n') == "bookworm"
    assert parse_codename('VERSION_CODENAME="trixie"\n') == "trixie"
    assert parse_codename("NAME=x\n") == ""


def test_a_release_without_security_support_gets_its_last_point_release() -> None:
    settings = AptSettings(mirror="http://m.example", security="http://s.example", options=(), environment={})
    assert "deb http://s.example bookworm-security main" in settings.sources("bookworm")
    assert not any("security" in line for line in settings.sources("bullseye"))
