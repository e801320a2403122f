"""A store, opened: the backend, what `FORMAT` says, and where steps are told."""

from __future__ import annotations

from dataclasses import dataclass

from synnefo_light.store.backend import Backend, Kind, Trace
from synnefo_light.store.errors import Absent, FormatRefused
from synnefo_light.store.formats import Format, parse_format

FORMAT_KEY = "FORMAT"
CUTS_KEY = "CUTS"


def no_trace(step: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What every function of the store takes first. `trace` is told each step of an operation when it is done."""

    backend: Backend
    format: Format
    trace: Trace = no_trace


def open_store(backend: Backend, *, trace: Trace = no_trace) -> Store:
    """Raises FormatRefused when there is no store, or one of a newer or another format."""
    try:
        loaded = backend.load(Kind.STORE, FORMAT_KEY)
    except Absent:
        raise FormatRefused(
            f"{backend.place} is not a store: it has no FORMAT; `snf-store init` makes one in an empty place"
        ) from None
    form = parse_format(loaded.data, backend.place)
    backend.fresh_s = form.grace_s / 2
    return Store(backend=backend, format=form, trace=trace)
