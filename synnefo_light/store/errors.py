"""What the store says when it refuses, under the tree of `synnefo_light.errors`.

UserError (2)
├── Absent          what was asked for is not in the store
└── Conflict        the record is there already, or was changed by somebody else
EnvironmentFault (3)
└── StoreFault      the store, or what it lies on, must be mended
    ├── FormatRefused    no store, or one of another format
    ├── Corrupt          an object's bytes are not what its name or checksum says
    ├── StoreFull        no space (ENOSPC, EDQUOT)
    └── StoreBroken      the storage refused a write or a sync; nothing was acknowledged, nothing is retried
"""

from __future__ import annotations

from synnefo_light.errors import EnvironmentFault, UserError


class Absent(UserError):
    pass


class Conflict(UserError):
    pass


class StoreFault(EnvironmentFault):
    pass


class FormatRefused(StoreFault):
    pass


class Corrupt(StoreFault):
    """`place` names the object ("page 3f..."), `why` what is wrong with it."""

    def __init__(self, place: str, why: str) -> None:
        self.place = place
        self.why = why
        super().__init__(f"{place} {why}")


class StoreFull(StoreFault):
    pass


class StoreBroken(StoreFault):
    pass
