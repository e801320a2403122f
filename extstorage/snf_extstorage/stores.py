"""The store beside the engine's volumes, and the catalogue of both."""

from __future__ import annotations

from snf_extstorage.catalog import Catalog
from snf_extstorage.providers import open_volumes
from snf_extstorage.settings import Settings
from snf_extstorage.volume import Volumes
from synnefo_light.errors import ConfigError
from synnefo_light.store.directory import Directory
from synnefo_light.store.store import Store, open_store


def open_site_store(settings: Settings) -> Store:
    """Raises FormatRefused when there is none."""
    if settings.engine != "directory":
        raise ConfigError(f"engine is {settings.engine!r}, whose store this release cannot open; use directory")
    return open_store(Directory(settings.folder / "store"))


def open_catalog(settings: Settings, volumes: Volumes | None = None) -> Catalog:
    """Raises Error, as when the folder is not mounted."""
    return Catalog(open_site_store(settings), volumes or open_volumes(settings), engine=settings.engine)
