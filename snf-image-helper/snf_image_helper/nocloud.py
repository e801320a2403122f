"""The seed for a system whose files cannot be written here: NoCloud's files, and the partition they come in.

What they say is what cloud-init and FreeBSD's nuageinit both understand: the host name, passwords, keys, files and
static addresses. A card with DHCPv4 gets no static IPv6 address from nuageinit, and a gateway off the link none either.

Sources: cloud-init's NoCloud and "networking config version 2"; nuageinit(7) of FreeBSD 14.1 and later.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence

from snf_image_helper.layout import ALIGN, NewPartition
from snf_image_helper.network.cards import configured
from snf_image_helper.partitions import DATA_GPT, Gpt, Table, TableError
from synnefo_light.manifest import Manifest, Nic

PARTITION = "cidata"
SEED_MIB = 16  # FAT takes little of it; the manifest has at most 8 MiB


def seed_partition(table: Table, manifest: Manifest) -> NewPartition:
    """The partition for the seed: the one that an earlier run made, else the first free number.

    Raises TableError when the table is no GPT, or has no free number.
    """
    if not isinstance(table, Gpt):
        raise TableError("a system of BSD is customised by a seed partition, which needs a GPT; the image has an MBR")
    used = {p.number for p in table.partitions}
    made = next((p.number for p in table.partitions if (p.kind, p.name) == (DATA_GPT, PARTITION)), None)
    number = made or next((n for n in range(1, len(table.entries) // table.entry_size + 1) if n not in used), None)
    if number is None:
        raise TableError("the image's GPT has no free entry for the seed partition")
    seed = f"{manifest.nonce}:seed-partition"
    return NewPartition(number=number, sectors=SEED_MIB * ALIGN, seed=seed, kind=DATA_GPT, name=PARTITION)


def render_seed(manifest: Manifest) -> tuple[tuple[str, bytes], ...]:
    """The files of the seed, by name. What the manifest leaves out (`skip`) is not in them."""
    meta = [f"instance-id: {_text(f'{manifest.instance}-{manifest.nonce[:8]}')}"]
    meta += [f"local-hostname: {_text(manifest.hostname)}"] if "hostname" not in manifest.skip else []
    user = manifest.cloud_init
    data = base64.b64decode(user.userdata) if user is not None and user.userdata else _user_data(manifest).encode()
    files = [("meta-data", _lines(meta).encode()), ("user-data", data)]
    if configured(manifest.nics) and "network" not in manifest.skip:
        files.append(("network-config", render_network_config(manifest.nics).encode()))
    return tuple(files)


def displaced(manifest: Manifest) -> list[str]:
    """What the user's own user-data takes the place of: nuageinit knows no vendor-data."""
    if manifest.cloud_init is None or not manifest.cloud_init.userdata:
        return []
    asked = (
        ("the passwords", manifest.passwords and "password" not in manifest.skip),
        ("the keys", manifest.authorized_keys.strip() and "password" not in manifest.skip),
        ("the files of img_personality", manifest.files and "personality" not in manifest.skip),
    )
    return [what for what, given in asked if given]


def render_network_config(nics: Sequence[Nic]) -> str:
    """Version 2, matched by MAC. gateway4 and gateway6, not routes: that is what nuageinit knows."""
    lines = ["version: 2", "ethernets:"]
    for number, nic in configured(nics):
        lines += [f"  nic{number}:", "    match:", f"      macaddress: {_text(nic.mac)}"]
        lines += ["    dhcp4: true"] if nic.ipv4 == "dhcp" else []
        lines += ["    dhcp6: true"] if nic.ipv6 == "dhcp" else []
        lines += ["    accept-ra: true"] if nic.ipv6 in ("slaac", "dhcp") else []
        if addresses := [a for a in (nic.ipv4_address, nic.ipv6_address) if a is not None]:
            lines += ["    addresses:", *(f"      - {_text(a)}" for a in addresses)]
        for key, gateway in (("gateway4", nic.ipv4_gateway), ("gateway6", nic.ipv6_gateway)):
            lines += [f"    {key}: {_text(gateway)}"] if gateway is not None else []
        if nic.nameservers or nic.search:
            lines.append("    nameservers:")
            for key, values in (("addresses", nic.nameservers), ("search", nic.search)):
                lines += [f"      {key}:", *(f"        - {_text(v)}" for v in values)] if values else []
        lines += [f"    mtu: {nic.mtu}"] if nic.mtu is not None else []
    return _lines(lines)


def _user_data(manifest: Manifest) -> str:
    """`users` is always there: without it nuageinit makes an account with a password that everybody knows."""
    lines = ["#cloud-config", "users:"]
    keys = [line for line in manifest.authorized_keys.splitlines() if line.strip() and not line.startswith("#")]
    with_access = "password" not in manifest.skip
    for user in manifest.users:
        lines.append(f"  - name: {_text(user)}")
        if keys and with_access:
            lines += ["    ssh_authorized_keys:", *(f"      - {_text(key)}" for key in keys)]
    hashed = [(p.user, p.hashed.reveal()) for p in manifest.passwords if p.hashed is not None and with_access]
    if hashed:
        lines += ["chpasswd:", "  expire: false", "  users:"]
        for name, password in hashed:
            lines += [f"    - name: {_text(name)}", f"      password: {_text(password)}", "      type: hash"]
    if manifest.files and "personality" not in manifest.skip:
        lines.append("write_files:")
        for file in manifest.files:
            group = "wheel" if file.group == "root" else file.group
            lines += [f"  - path: {_text(file.path)}", "    encoding: b64", f"    content: {_text(file.contents)}"]
            lines += [f"    owner: {_text(f'{file.owner}:{group}')}", f"    permissions: {_text(f'{file.mode:04o}')}"]
    return _lines(lines)


def _text(value: str) -> str:
    """A string of JSON is one of YAML."""
    return json.dumps(value)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
