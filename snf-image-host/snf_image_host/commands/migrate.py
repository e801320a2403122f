"""`snf-image migrate --check`: what an old snf-image's configuration is in ours. Reads, prints, writes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from snf_image_host.commands import Out
from snf_image_host.migrate import plan_migration
from snf_image_host.settings import FILE, Settings
from synnefo_light.errors import ConfigError, UserError
from synnefo_light.files import read_bounded
from synnefo_light.units import MIB

NAME: Final = "migrate"
SUMMARY: Final = "say what the configuration of an older snf-image is in this one's"
OLD: Final = (
    "etc/snf-image/snf-image.conf",
    "etc/default/snf-image",
    "etc/ganeti/snf-image/variants/*.conf",
    "etc/snf-image/backends/*/*.conf",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", required=True, help="print it; nothing is written")
    parser.add_argument("files", nargs="*", metavar="FILE", help="old files; without any, those of this node")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    files = [Path(name) for name in arguments.files] or list(old_files(Path("/")))
    if not files:
        raise UserError("no configuration of an older snf-image is on this node; name its files")
    lost = False
    for path in files:
        migrated = plan_migration(_read(path), name=str(path))
        where = FILE if migrated.kind == "configuration" else settings.variants_dir / f"{path.stem}.toml"
        out(f"# ---- for {where}\n{migrated.text}")
        lost = lost or migrated.lost
    return 1 if lost else 0


def old_files(root: Path) -> Iterator[Path]:
    for pattern in OLD:
        yield from sorted(root.glob(pattern))


def _read(path: Path) -> str:
    try:
        return read_bounded(path, limit=MIB).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8; convert it with iconv") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None
