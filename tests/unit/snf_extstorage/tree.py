"""Where the room is."""

from __future__ import annotations

from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
ROOM = TREE / "extstorage"
