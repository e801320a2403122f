"""What somebody may have meant who misspelt a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """ "; did you mean X?", or nothing. What all begin with says nothing about likeness."""
    close = difflib.get_close_matches(name.removeprefix(prefix), [k.removeprefix(prefix) for k in known], cutoff=0.7)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
