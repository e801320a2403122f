"""The content-addressed store: blocks, maps of blocks, names, pins, and the collector of what nobody needs.

    name ──► map (root ──► pages) ──► blocks          pin ──► map, or "everything touched since"
    mutable  immutable, named by the SHA-256 of what they are

Everything immutable is created once and never changed; only the collector removes it. What changes are names and pins:
small records replaced by compare-and-swap. The order of every write is data, then reference, then publication, then
acknowledgement, so that what a crash leaves is garbage and never a name whose blocks are missing.

Begin with `store.py` (open a store), `commit.py` and `sharing.py` (what a volume engine needs), `backend.py` (what a
backend promises). snf-store(5) describes the formats.
"""
