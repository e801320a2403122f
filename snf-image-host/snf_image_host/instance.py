"""An instance that no Ganeti knows: what Ganeti would have said of it, from words of a command line."""

from __future__ import annotations

import argparse
import ipaddress
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_image_host.likeness import nearest
from synnefo_light.errors import UsageError, UserError
from synnefo_light.files import read_bounded
from synnefo_light.ganeti import OsEnv, parse_os_env
from synnefo_light.log import escape
from synnefo_light.records import RecordError, dump_json, load_json
from synnefo_light.units import MIB

LIMIT: Final = 16 << 20
#: Keys of --nic, and the variable of ganeti-os-interface(7) that each becomes.
NIC_KEYS: Final[Mapping[str, str]] = {
    "mac": "MAC",
    "ip": "IP",
    "mode": "MODE",
    "link": "LINK",
    "network": "NETWORK_NAME",
    "subnet": "NETWORK_SUBNET",
    "gateway": "NETWORK_GATEWAY",
    "subnet6": "NETWORK_SUBNET6",
    "gateway6": "NETWORK_GATEWAY6",
    "tags": "NETWORK_TAGS",
}

NIC_HELP: Final = (
    "network card, of the MAC aa:00:00:00:00:00 (the next ends in 01) if none is given; may be given again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    path: Path
    size: int  # bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words that say of an instance what Ganeti says otherwise, but for its disks."""
    parser.add_argument("-O", action="append", default=[], dest="parameters", metavar="NAME=VALUE", help="OS parameter")
    parser.add_argument("--parameters", dest="file", metavar="FILE", help="JSON object of OS parameters; for secrets")
    parser.add_argument("--hostname", default="instance", metavar="NAME", help="name of the instance")
    parser.add_argument("--variant", default="default", metavar="NAME", help="variant of the OS definition")
    keys = ",".join(f"{key}=..." for key in ("mac", "ip", "subnet", "gateway"))
    parser.add_argument("--nic", action="append", default=[], metavar=keys, help=NIC_HELP)


def environment(arguments: argparse.Namespace, disks: Sequence[Disk]) -> OsEnv:
    """What Ganeti would pass to `create` as a reinstall: until the copy begins the disk stays as it is.

    Raises UserError, which names the word that is wrong.
    """
    if not arguments.hostname:
        raise UsageError("--hostname is empty; give the instance's name, or leave it out")
    variables = {
        "OS_API_VERSION": "20",
        "OS_VARIANT": arguments.variant,
        "INSTANCE_NAME": arguments.hostname,
        "INSTANCE_UUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, arguments.hostname.encode("utf-8", "replace").decode())),
        "INSTANCE_REINSTALL": "1",
        "DISK_COUNT": str(len(disks)),
        "NIC_COUNT": str(len(arguments.nic)),
    }
    for n, disk in enumerate(disks):
        variables |= {f"DISK_{n}_PATH": str(disk.path), f"DISK_{n}_SIZE": str(disk.size // MIB)}
    for n, text in enumerate(arguments.nic):
        variables |= _nic(n, text)
    given = parse_parameters_file(Path(arguments.file)) if arguments.file else {}
    given |= parse_assignments(arguments.parameters)
    variables |= {f"OSP_{name.upper()}": value for name, value in given.items()}
    try:
        return parse_os_env(variables)
    except UserError:
        raise
    except Exception as e:
        raise UserError(_in_our_words(str(e))) from None


def parse_assignments(words: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE words. Raises UsageError."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or name != name.lower():
            raise UsageError(f"-O '{escape(name, limit=80)}': give a parameter as NAME=VALUE, its name in lower case")
        if name in found:
            raise UsageError(f"-O {name} is given twice")
        found[name] = value
    return found


def parse_parameters_file(path: Path) -> dict[str, str]:
    """A JSON object of OS parameters; what is an object or a list itself becomes JSON text. Raises UserError."""
    try:
        data = load_json(read_bounded(path, limit=LIMIT), limit=LIMIT)
        if not isinstance(data, dict):
            raise RecordError("it is not a JSON object of names and values")
        return {str(k): v if isinstance(v, str) else dump_json(v).decode() for k, v in data.items()}
    except OSError as e:
        raise UserError(f"--parameters {path} cannot be read: {e.strerror}") from None
    except RecordError as e:
        raise UserError(f"--parameters {path}: {e}") from None


def _nic(n: int, text: str) -> dict[str, str]:
    variables = {f"NIC_{n}_MAC": f"aa:00:00:00:00:{n:02x}", f"NIC_{n}_MODE": "bridged", f"NIC_{n}_LINK": "br0"}
    for word in filter(None, text.split(",")):
        key, equals, value = word.partition("=")
        if key not in NIC_KEYS or not equals:
            known = ", ".join(NIC_KEYS)
            raise UsageError(f"--nic '{escape(word, limit=80)}': the keys are {known}{nearest(key, NIC_KEYS)}")
        variables[f"NIC_{n}_{NIC_KEYS[key]}"] = value.replace("+", " ") if key == "tags" else value
    subnet = variables.get(f"NIC_{n}_NETWORK_SUBNET")
    if subnet is not None:
        variables.setdefault(f"NIC_{n}_NETWORK_NAME", "network")
        try:
            variables[f"NIC_{n}_NETWORK_SUBNET"] = str(ipaddress.IPv4Network(subnet, strict=False))
        except ValueError:
            raise UserError(f"--nic subnet={escape(subnet, limit=80)} is not a network, as 192.0.2.0/24 is") from None
    return variables


def _in_our_words(sentence: str) -> str:
    """Nobody said a variable of Ganeti's here."""
    return sentence.replace("Ganeti passed INSTANCE_NAME=", "--hostname is ").replace("Ganeti passed", "the words give")
