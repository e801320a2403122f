"""Configuration: one TOML file per program in /etc/synnefo-light/, one frozen dataclass per file.

Every key has a default, so no file at all is a valid configuration; a key we do not know is refused by name, so a
misspelt one cannot be ignored.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from synnefo_light.errors import ConfigError
from synnefo_light.records import RecordError, build

FOLDER = Path("/etc/synnefo-light")
LIMIT = 1 << 20

T = TypeVar("T")


def load(path: Path, into: type[T]) -> T:
    """The configuration at `path` as an `into`, all defaults if there is no such file.

    Raises ConfigError naming the file and the key, also when the file is unreadable or over 1 MiB.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(LIMIT + 1)
    except FileNotFoundError:
        return into()
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}") from e
    if len(raw) > LIMIT:
        raise ConfigError(f"{path} has over {LIMIT} bytes; a configuration is smaller")
    return parse(raw, into, name=str(path))


def parse(raw: bytes, into: type[T], *, name: str) -> T:
    """TOML text as an `into`; `name` is what error messages call it. Raises ConfigError."""
    try:
        return build(tomllib.loads(raw.decode("utf-8")), into)
    except RecordError as e:
        raise ConfigError(f"{name}: {e}") from None
    except ValueError as e:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigError(f"{name} is not TOML: {e}") from None
