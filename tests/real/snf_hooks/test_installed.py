"""The file at its place below /etc, with the packages of the system in whatever state."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.real.snf_hooks.apart import ENTRY, IN_MEMORY, run

TREE = ENTRY.parents[1]
INSTALLED = Path("/etc/ganeti/hooks/instance-start-post.d/50-synnefo-light")
#: The file alone, as a removed package leaves it.
ALONE = f"""{IN_MEMORY}
mount -t tmpfs none /etc
mkdir -p {INSTALLED.parent}
mount -t tmpfs none /usr/lib/python3/dist-packages
cp {ENTRY} {INSTALLED}
"""
WHOLE = f"""{ALONE}
cp -r {TREE}/hooks/snf_hooks {TREE}/synnefo_light /usr/lib/python3/dist-packages
cd /usr/lib/python3/dist-packages
"""
BROKEN = {
    "half removed": ("rm -r synnefo_light", "ModuleNotFoundError: No module named 'synnefo_light'"),
    "cut": ("echo 'def' >synnefo_light/spool.py", "SyntaxError"),
    "raising": ("echo '1 / 0' >synnefo_light/errors.py", "ZeroDivisionError"),
    "without a module": ("rm snf_hooks/main.py", "No module named 'snf_hooks.main'"),
    "without a name": ("echo >snf_hooks/main.py", "ImportError: cannot import name 'main'"),
}


def test_the_file_of_etc_uses_the_packages_of_the_system(folder: Path) -> None:
    outcome = run(folder, WHOLE, INSTALLED)
    assert (outcome.stderr, outcome.syslog, len(outcome.spool)) == ("", [], 1)


def test_the_file_does_nothing_when_the_package_is_gone(folder: Path) -> None:
    outcome = run(folder, ALONE, INSTALLED)
    assert (outcome.stderr, outcome.syslog, outcome.spool) == ("", [], [])


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_one_line_of_syslog_and_ganeti_goes_on(folder: Path, case: str) -> None:
    damage, reason = BROKEN[case]
    outcome = run(folder, WHOLE + damage, INSTALLED)
    (line,) = outcome.syslog
    assert "snf-hooks[" in line and "no event was left: the hook cannot be loaded: " in line and reason in line
    assert outcome.stderr.count("\n") == 1 and outcome.spool == []


PURGED = """
set -e
mount -t tmpfs none /var/lib
mkdir -p /var/lib/synnefo-light/hooks
touch /var/lib/synnefo-light/hooks/web1
eval "$1"
sh "$2" "$3"
find /var/lib -mindepth 1
"""


@pytest.mark.parametrize(
    ("beside", "action", "left"),
    [
        ("true", "purge", []),
        ("touch /var/lib/synnefo-light/other", "purge", ["/var/lib/synnefo-light", "/var/lib/synnefo-light/other"]),
        ("rm -r /var/lib/synnefo-light", "purge", []),
        (
            *("rm /var/lib/synnefo-light/hooks/web1", "remove"),
            ["/var/lib/synnefo-light", "/var/lib/synnefo-light/hooks"],
        ),
    ],
)
def test_a_purge_takes_what_was_remembered_and_nothing_of_others(beside: str, action: str, left: list[str]) -> None:
    script = TREE / "debian" / "snf-ganeti-hooks.postrm"
    words: list[str | Path] = ["unshare", "--mount", "sh", "-c", PURGED, "sh", beside, script, action]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    assert sorted(done.stdout.split()) == left and done.stderr == ""
