"""What a deployment before this one wrote about the cards, and what is still read where another stack has them now.

So it is where an image is made of an instance that we deployed, or is deployed again as it is, with NM_NETWORKING or
CLOUD_INIT said otherwise: netplan would join our old file with cloud-init's, and networkd would leave alone the cards
that NetworkManager had. A name that others may use too is ours where our first line is still in the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from snf_image_helper.actions import Action, RemoveFile, WriteFile
from snf_image_helper.distribution import is_file
from snf_image_helper.image import Files, RootPath
from snf_image_helper.network.aside import SAVED
from snf_image_helper.network.cards import HEADER
from snf_image_helper.network.ifcfg_rh import NETWORK_SCRIPTS
from snf_image_helper.network.ifupdown import INTERFACES
from snf_image_helper.network.netplan import NETPLAN, OWN
from snf_image_helper.network.network_manager import CONNECTIONS, MANAGING
from snf_image_helper.network.networkd import NETWORKD, PREFIX, UNMANAGED, WAIT_ONLINE

#: In which folder, by which names.
PLACES: tuple[tuple[RootPath, str], ...] = (
    (NETPLAN, re.escape(OWN.name)),
    (NETWORKD, rf"{PREFIX}\d+\.network"),
    (WAIT_ONLINE.parent, re.escape(WAIT_ONLINE.name)),
    (CONNECTIONS, r"snf-image-\d+\.nmconnection"),
    (UNMANAGED.parent, "|".join(re.escape(path.name) for path in (MANAGING, UNMANAGED))),
    (NETWORK_SCRIPTS, r"(?:ifcfg|route6?)-nic\d+"),
)


def plan_earlier_removed(files: Files, actions: Sequence[Action]) -> list[Action]:
    """Remove our own files that `actions`, the plan of this deployment, neither write nor remove."""
    done = {action.path for action in actions if isinstance(action, WriteFile | RemoveFile)}
    found = (folder / name for folder, names in PLACES for name in files.names(folder) if re.fullmatch(names, name))
    return [RemoveFile(path=path) for path in found if path not in done and _is_ours(files, path)]


def plan_interfaces_back(files: Files) -> list[Action]:
    """The image's own /etc/network/interfaces instead of ours, which includes none of the folder of cloud-init's."""
    if not _is_ours(files, INTERFACES):
        return []
    own = files.read(RootPath(f"{INTERFACES}{SAVED}"))
    return [WriteFile(path=INTERFACES, content=own)] if own is not None else []


def _is_ours(files: Files, path: RootPath) -> bool:
    return is_file(files, path) and ("snf-image" in path.name or (files.read(path) or b"").startswith(HEADER.encode()))
