"""What a provider does: one method for each script that Ganeti calls.

Source: ganeti-extstorage-interface(7) of 3.0 and 3.1 and what they were seen to call. Each method may be called again
after a crash and must reach the same end. Ganeti calls `attach` before nearly everything, on nodes where the disk must
not be written, and never calls `close` when an instance stops; so attach takes no lock, and detach closes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from snf_extstorage.volume import Attachment, FromVolume, Volumes
from synnefo_light.errors import UserError
from synnefo_light.ganeti import CreateEnv, GrowEnv, OpenEnv, SetInfoEnv, SnapshotEnv, VolumeEnv
from synnefo_light.log import escape
from synnefo_light.units import bytes_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A disk option of ours: `--disk 0:size=10G,provider=P,NAME=VALUE`."""

    name: str
    help: str  # one line of parameters.list


class Provider(Protocol):
    """`create` alone reads the parameters that say what to make; the others get them too, for the disk's life."""

    def create(self, env: CreateEnv) -> None: ...

    def remove(self, env: VolumeEnv) -> None: ...

    def grow(self, env: GrowEnv) -> None: ...

    def attach(self, env: VolumeEnv) -> Attachment: ...

    def detach(self, env: VolumeEnv) -> None: ...

    def snapshot(self, env: SnapshotEnv) -> None: ...

    def set_info(self, env: SetInfoEnv) -> None: ...

    def open(self, env: OpenEnv) -> None: ...

    def close(self, env: VolumeEnv) -> None: ...


class VolumeProvider:
    """Every script but `create`, on the volumes of an engine. What they begin as is what providers differ in."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def remove(self, env: VolumeEnv) -> None:
        self._volumes.remove(env.volume)

    def grow(self, env: GrowEnv) -> None:
        self._volumes.grow(env.volume, bytes_of(env.new))
        from snf_extstorage.guests import instance_of, tell_size

        instance = instance_of(self._volumes.facts(env.volume).info)
        if instance is not None and env.uuid is not None:
            tell_size(instance, env.uuid, bytes_of(env.new))

    def attach(self, env: VolumeEnv) -> Attachment:
        return self._volumes.attach(env.volume)

    def detach(self, env: VolumeEnv) -> None:
        self._volumes.detach(env.volume)

    def snapshot(self, env: SnapshotEnv) -> None:
        """Ganeti attaches, reads and removes what it snapshots as if it were a volume, so it is made one: a clone.

        One of that name is what an export left that died, perhaps with its node; it goes, unless it is seen in use.
        """
        size = self._volumes.facts(env.volume).size  # and not Ganeti's book, which a failed grow leaves behind
        self._volumes.remove(env.snapshot, deserted=True)
        self._volumes.clone(FromVolume(volume=env.volume), env.snapshot, uuid=None, size=size)

    def set_info(self, env: SetInfoEnv) -> None:
        self._volumes.set_info(env.volume, env.text)

    def open(self, env: OpenEnv) -> None:
        self._volumes.open(env.volume, exclusive=env.exclusive)

    def close(self, env: VolumeEnv) -> None:
        self._volumes.close(env.volume)


def refuse_unknown(params: Mapping[str, str], known: tuple[Parameter, ...], *, provider: str) -> None:
    """Ganeti checks no names, and a misspelt one must not be ignored. Raises UserError naming the first."""
    names = {p.name for p in known}
    for name in sorted(params):
        if name not in names:
            words = ", ".join(sorted(names)) or "none"
            raise UserError(f"the disk option {escape(name)!r} is not known to provider {provider}; it knows {words}")


def render_parameters_list(known: tuple[Parameter, ...]) -> str:
    """The file parameters.list: a name, a blank, what it is for. A blank line would be a parameter without a name."""
    return "".join(f"{p.name} {p.help}\n" for p in known)
