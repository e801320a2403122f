"""The host's own apt settings, so that the lab gets packages from where the host gets them, by the same proxy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from synnefo_light.run import Runner

#: Settings that decide whether and how the archive can be reached; the rest of the host's configuration is its own.
CARRIED = ("Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::Check", "Acquire::Retries")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
KEYRINGS = Path("/usr/share/keyrings")


#: Releases without security support: mirrors have their last point release whole, and what came after it in parts.
ENDED = frozenset({"bullseye"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AptSettings:
    """`mirror` is None when the host's sources name no Debian archive: then the tools' own default is right."""

    mirror: str | None
    security: str | None = None  # where the host gets Debian's security updates
    options: tuple[str, ...]  # lines of apt.conf
    environment: Mapping[str, str]

    def sources(self, codename: str) -> list[str]:
        """Lines of a sources.list for a release; [] where mmdebstrap's default, which has all three, is right."""
        if self.mirror is None:
            return []
        lines = [f"deb {self.mirror} {codename} main", f"deb {self.mirror} {codename}-updates main"]
        return [*lines, f"deb {self.security} {codename}-security main"] if self._has_security(codename) else lines

    def _has_security(self, codename: str) -> bool:
        return self.security is not None and codename not in ENDED


def parse_deb822(text: str) -> list[dict[str, str]]:
    """The stanzas of a sources file (sources.list(5)): field names in lower case, comments and blank lines dropped."""
    stanzas: list[dict[str, str]] = []
    field = ""
    fresh = True
    for line in text.splitlines():
        if not line.strip():
            fresh = True
        elif line.startswith("#"):
            continue
        elif line[0].isspace() and stanzas and field:
            stanzas[-1][field] += " " + line.strip()
        else:
            if fresh:
                stanzas.append({})
                fresh = False
            name, _, value = line.partition(":")
            field = name.strip().lower()
            stanzas[-1][field] = value.strip()
    return stanzas


def parse_one_line(text: str) -> list[dict[str, str]]:
    """The lines of a sources.list in the same shape as `parse_deb822`."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s*)?(\S+)\s+(\S+)\s*(.*)", line)
        if match:
            found.append({"types": "deb", "uris": match[1], "suites": match[2], "components": match[3]})
    return found


def find_mirror(stanzas: Iterable[Mapping[str, str]], suite: str) -> str | None:
    """The first archive that carries a suite with `main`: that of other releases of Debian is there too."""
    for stanza in stanzas:
        if (
            "deb" in stanza.get("types", "deb").split()
            and suite in stanza.get("suites", "").split()
            and "main" in stanza.get("components", "").split()
            and stanza.get("enabled", "yes") != "no"
        ):
            return stanza["uris"].split()[0]
    return None


def parse_options(dump: str) -> tuple[str, ...]:
    """The lines of `apt-config dump` that are carried over."""
    return tuple(line for line in dump.splitlines() if line.startswith(CARRIED) and not line.endswith(' "";'))


def parse_codename(os_release: str) -> str:
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', os_release, re.MULTILINE)
    return match[1] if match else ""


def read_settings(runner: Runner) -> AptSettings:
    stanzas: list[dict[str, str]] = []
    folder = Path("/etc/apt/sources.list.d")
    for file in (Path("/etc/apt/sources.list"), *sorted(folder.glob("*"))):
        if file.is_file() and file.suffix in (".list", ".sources"):
            text = file.read_text(errors="replace")
            stanzas += parse_deb822(text) if file.suffix == ".sources" else parse_one_line(text)
    codename = parse_codename(Path("/etc/os-release").read_text())
    return AptSettings(
        mirror=find_mirror(stanzas, codename),
        security=find_mirror(stanzas, f"{codename}-security"),
        options=parse_options(runner(["apt-config", "dump"], timeout_s=20).text),
        environment={name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ},
    )
