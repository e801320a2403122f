"""Debian trees that are not nodes: what an image is filled from, and tools that must not be installed on the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from snf_lab.apt import AptSettings
from snf_lab.progress import run_logged
from synnefo_light.run import Runner, run

BUILD_S = 1800.0

# "extract" only unpacks: enough to run a program by chroot. "apt" configures too, "minbase" is a whole small system.
Variant = Literal["extract", "apt", "minbase"]


def plan_tree(
    *,
    release: str,
    variant: Variant,
    packages: Sequence[str],
    target: Path,
    settings: AptSettings,
    options: Sequence[str] = (),
) -> list[str | Path]:
    """The mmdebstrap command that makes a tree from where the host's apt gets its own, without recommended packages."""
    return [
        "mmdebstrap",
        "--mode=root",
        f"--variant={variant}",
        *(f"--aptopt={line}" for line in settings.options),
        f"--include={','.join(packages)}",
        *options,
        release,
        target,
        *settings.sources(release),
    ]


def make_tree(words: Sequence[str | Path], *, log: Path, settings: AptSettings, runner: Runner = run) -> None:
    run_logged(words, log=log, timeout_s=BUILD_S, env=dict(settings.environment), runner=runner)
