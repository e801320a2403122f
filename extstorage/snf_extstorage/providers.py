"""Which module is which provider, and which is which engine. Each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from snf_extstorage.provider import Parameter, Provider
from snf_extstorage.volume import Volumes
from synnefo_light.errors import UsageError

if TYPE_CHECKING:
    from snf_extstorage.settings import Settings

#: A provider's name is that of its folder, which Ganeti knows it by.
PROVIDERS: Final = {"archipelago": "snf_extstorage.archipelago", "rados": "snf_extstorage.rados.provider"}
ENGINES: Final = {"directory": "snf_extstorage.directory.engine", "rados": "snf_extstorage.rados.engine"}


class ProviderModule(Protocol):
    #: What `create` takes; the file parameters.list says the same.
    PARAMETERS: tuple[Parameter, ...]

    def provider(self, params: Mapping[str, str]) -> Provider:
        """The provider for one disk, whose parameters are `params`. Raises Error."""
        ...


class Elsewhere(Protocol):
    """Volumes of a provider of ours that are not the engine's; see `Volumes` for what each of these does."""

    def volumes(self) -> Sequence[Volumes]: ...

    def sweep(self) -> list[str]: ...

    def check(self) -> Iterator[str]: ...


class EngineModule(Protocol):
    def volumes(self, settings: Settings) -> Volumes:
        """The engine as /etc/synnefo-light/snf-store.toml has it. Raises Error."""
        ...


def provider_module(name: str) -> ProviderModule:
    if name not in PROVIDERS:
        raise UsageError(f"{name!r} is not an ExtStorage provider of ours; there are {', '.join(sorted(PROVIDERS))}")
    return cast(ProviderModule, import_module(PROVIDERS[name]))


def open_volumes(settings: Settings) -> Volumes:
    """Raises Error, as when the folder is not mounted or the cluster cannot be reached."""
    return cast(EngineModule, import_module(ENGINES[settings.engine])).volumes(settings)


def open_elsewhere(settings: Settings) -> Elsewhere:
    """What the provider `rados` has in pools that the engine does not look at. Raises Error."""
    return cast(Elsewhere, import_module("snf_extstorage.rados.elsewhere").Elsewhere(settings))
