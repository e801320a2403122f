"""How a process ends that has asked Ceph for something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.real.snf_extstorage.rados_site import POOL, RadosSite

#: Asks for many images, waits for the answer to none, and ends.
ASKING = """
import sys
from pathlib import Path
from snf_extstorage.rados.images import Images
from synnefo_light.ceph import Access, Cluster
images = Images(Cluster(Access(conf=Path(sys.argv[1]), user="ganeti")), pool=sys.argv[2])
for number in range(300):
    images.look_for(f"none-{number}")
"""


def test_a_process_ends_well_though_what_it_asked_was_not_answered_yet(rados: RadosSite) -> None:
    """Else the thread that brings the answer finds no Python any more, and SIGABRT ends the process."""
    tree = Path(__file__).resolve().parents[3]
    env = {"PYTHONPATH": f"{tree}:{tree / 'extstorage'}"}
    words = [sys.executable, "-c", ASKING, str(rados.ceph.client_conf), POOL]
    for _ in range(5):
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
