"""The one grammar of what people and Ganeti name: volumes, images, snapshots, objects, and records of the store.

No slash, `@`, `:`, comma or blank, no leading dot, dash or `_`: fit for a file, an RBD image or snapshot, a QEMU option
and an origin alike. A name may be followed by `-` and 32 digits, and is still one.
"""

from __future__ import annotations

import re
from typing import Final

LIMIT: Final = 200
#: For a sentence: "NAME is not ...".
ALLOWED: Final = (
    f"1 to {LIMIT} letters, digits and . _ + -, the first of them a letter or digit and the last of them no dot"
)

_NAME: Final = re.compile(rf"(?!.*\.\Z)[A-Za-z0-9][A-Za-z0-9._+-]{{0,{LIMIT - 1}}}")


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None
