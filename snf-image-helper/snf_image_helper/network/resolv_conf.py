"""/etc/resolv.conf, where no program makes it of what the cards' configuration says (resolv.conf(5))."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, RemoveFile, WriteFile
from snf_image_helper.distribution import exists, is_enabled
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.cards import HEADER, nameservers, search_domains
from synnefo_light.manifest import Nic

RESOLV_CONF = RootPath("etc/resolv.conf")


def plan_resolv_conf(files: Files, nics: Sequence[Nic]) -> list[Action]:
    if not nameservers(nics) and not search_domains(nics):
        return []
    if is_enabled(files, "systemd-resolved.service") or exists(files, "usr/sbin/resolvconf", "sbin/resolvconf"):
        return []
    # A link that stayed behind from another resolver leads to nothing, or into /run: the file takes its place.
    stale: list[Action] = [RemoveFile(path=RESOLV_CONF)] if files.link(RESOLV_CONF) is not None else []
    return [*stale, WriteFile(path=RESOLV_CONF, content=render_resolv_conf(nics).encode(), mode=0o644)]


def render_resolv_conf(nics: Sequence[Nic]) -> str:
    """resolv.conf(5) takes three servers and one line of domains."""
    domains = search_domains(nics)
    lines = [f"search {' '.join(domains)}"] if domains else []
    return HEADER + "".join(f"{line}\n" for line in [*lines, *(f"nameserver {s}" for s in nameservers(nics)[:3])])
