"""Debian packages taken apart in a temporary folder, so that nothing of them works on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Unpack = Callable[..., Path]


def installed(name: str) -> bool:
    """Whether this machine has the package, so that its libraries are found without taking it apart."""
    argv = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout == "installed"


@pytest.fixture(scope="session")
def unpack(tmp_path_factory: pytest.TempPathFactory) -> Unpack:
    def packages(*names: str) -> Path:
        work = tmp_path_factory.mktemp("packages")
        absent = [name for name in names if not installed(name)]
        got = subprocess.run(["apt-get", "download", *absent], cwd=work, capture_output=True, text=True, check=False)
        if got.returncode != 0:
            pytest.skip(f"{', '.join(absent)} cannot be downloaded: {got.stderr.strip().splitlines()[-1:]}")
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, work], check=True)
        return work

    return packages
