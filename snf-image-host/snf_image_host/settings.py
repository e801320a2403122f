"""/etc/synnefo-light/snf-image.toml: what the administrator of a node decides, all with defaults."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from synnefo_light import config, events
from synnefo_light.errors import UserError

FILE: Final = config.FOLDER / "snf-image.toml"
DEFAULT_VARIANT: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The keys of the file, under the same names."""

    image_dir: Path = Path("/var/lib/snf-image")
    helper_dir: Path = Path("/usr/lib/snf-image-helper")
    variants_dir: Path = config.FOLDER / "snf-image" / "variants"
    run_dir: Path = Path("/run/snf-image")
    log_dir: Path = Path("/var/log/snf-image")
    spool: Path = events.SPOOL

    user: str = "snf-image"  # whom QEMU runs as; nobody where there is no such user
    qemu: str = "qemu-system-x86_64"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    kvm_limit_s: int = 120  # wall clock of the helper VM
    tcg_limit_s: int = 600
    memory_mib: int = 256

    convert_limit_s: int = 1800  # what the helper VM may take longer when it converts the image

    http_timeout_s: int = 30  # without a byte; http_ keys hold for ftp as well
    http_limit_s: int = 7200  # for the whole image
    http_networks: tuple[str, ...] = ()  # where an image may come from; () = neither special nor the node's own

    staging_dir: Path = Path("/var/cache/snf-image")  # where an image waits that the helper VM is to convert
    staging_limit_mib: int = 20480
    signature_keyrings: tuple[str, ...] = ()  # files of public keys, as gpgv(1) reads them
    signature_required: bool = False

    snf_store: str = "snf-store"  # the program that knows the store of images

    dhcp_tags: tuple[str, ...] = ("auto", "dhcp", "nfdhcpd")
    stateful_dhcpv6_tags: tuple[str, ...] = ("dhcpv6", "stateful_dhcpv6")
    lone_nic_ipv4: Literal["none", "dhcp"] = "dhcp"  # the only NIC of an instance, without an address or a network
    lone_nic_ipv6: Literal["none", "slaac", "dhcp"] = "none"
    nameservers: tuple[str, ...] = ()  # where dns_nameservers is not given
    search: tuple[str, ...] = ()

    rename: Literal["hostname", "noop"] = "hostname"
    strict_properties: bool = True  # False: snf-image's reading of unknown names and words
    allow_custom_task: bool = False
    windows_timezone: str = "GMT Standard Time"

    progress_monitor: str = ""  # absolute path of a program, a fifo or a file that gets snf-image's progress messages

    def __post_init__(self) -> None:
        for name in ("kvm_limit_s", "tcg_limit_s", "convert_limit_s", "http_timeout_s", "http_limit_s"):
            _check(1 <= getattr(self, name) <= 86400, f"{name} is not within 1 to 86400 seconds")
        _check(64 <= self.memory_mib <= 4096, "memory_mib is not within 64 to 4096")
        _check(1 <= self.staging_limit_mib <= 1 << 30, "staging_limit_mib is not within 1 to 1073741824")
        for text in self.signature_keyrings:
            _check(text.startswith("/"), f"the keyring {text!r} is not an absolute path")
        _check(
            0 < len(self.windows_timezone) <= 80 and self.windows_timezone.isprintable(),
            "windows_timezone is not the name of a time zone of Windows",
        )
        _check(
            not self.progress_monitor or self.progress_monitor.startswith("/"),
            "progress_monitor is not an absolute path",
        )
        for text in self.http_networks:
            ipaddress.ip_network(text)
        for text in self.nameservers:
            ipaddress.ip_address(text)
            _check("%" not in text, f"the name server {text!r} has a scope; leave out the % part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A variant's file: OS parameters that hold where the instance does not give them itself."""

    parameters: Mapping[str, str] = field(default_factory=dict)


def load_settings(path: Path = FILE) -> Settings:
    """Raises ConfigError."""
    return config.load(path, Settings)


def load_variant(name: str, settings: Settings) -> Variant:
    """The variant `name`; "default" needs no file. Raises ConfigError, or UserError when there is no such variant."""
    path = settings.variants_dir / f"{name}.toml"
    if "/" in name or name.startswith(".") or not (name == DEFAULT_VARIANT or path.exists()):
        raise UserError(f"the variant {name!r} has no file {path}; write one, or use the variant {DEFAULT_VARIANT}")
    return config.load(path, Variant)


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
