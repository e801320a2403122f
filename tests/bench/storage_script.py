"""What Ganeti waits for: the scripts, each a process of its own."""

from __future__ import annotations

import sys
from functools import partial
from typing import Final

from synnefo_light.run import run
from synnefo_light.store.identity import MapId
from tests.bench.storage_clone import register, timed
from tests.bench.storage_figures import ms, percentile
from tests.bench.storage_place import BLOCK, DirectorySite, new_name, write_data
from tests.bench.storage_sizes import MIB, Sizes

LIMIT_S: Final = 60.0
IMAGE: Final = "small"
#: Runs a program and prints the most memory that it had, in KiB. By itself it has little, which a child begins with.
WEIGH: Final = (
    "import resource, subprocess, sys; "
    "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def measure_scripts(site: DirectorySite, sizes: Sizes) -> dict[str, object]:
    """`create` with an origin and `attach`, beside a Python that starts and ends; and a hundred volumes one by one."""
    write_data(site.scratch / "script", size=sizes.image, data=sizes.runs * BLOCK, runs=sizes.runs, stamp=5)
    image = register(site.catalog, IMAGE, site.scratch / "script")
    create: list[float] = []
    attach: list[float] = []
    python: list[float] = []
    again: list[float] = []
    for _ in range(sizes.rounds * sizes.scripts):
        name = new_name()
        create.append(timed(partial(_create, site, name, sizes.image)))
        python.append(timed(lambda: run(["/usr/bin/python3", "-I", "-c", "pass"], timeout_s=LIMIT_S)))
        attach.append(timed(partial(_call, site, "attach", name)))
        again.append(timed(partial(site.volumes.attach, name)))
        _call(site, "detach", name)
        _call(site, "remove", name)
    return {
        "script_create_ms": ms(percentile(create, 50)),
        "script_python_ms": ms(percentile(python, 50)),
        "attach_ms": ms(percentile(attach, 50)),
        "attached_again_ms": ms(percentile(again, 50)),
        "rss_MiB": round(_weigh_create(site, sizes.image) / MIB, 1),
        **_hundred(site, image, sizes),
    }


def _create(site: DirectorySite, name: str, size: int) -> None:
    _call(site, "create", name, VOL_SIZE=str(size // MIB), EXTP_ORIGIN=IMAGE)


def _call(site: DirectorySite, script: str, name: str, **more: str) -> None:
    words, env = site.script(script, name, **more)
    run(words, env=env, timeout_s=LIMIT_S)


def _weigh_create(site: DirectorySite, size: int) -> int:
    """The most memory of the script `create`, in bytes."""
    name = new_name()
    words, env = site.script("create", name, VOL_SIZE=str(size // MIB), EXTP_ORIGIN=IMAGE)
    shown = run([sys.executable, "-I", "-S", "-c", WEIGH, *words], env=env, timeout_s=LIMIT_S)
    site.volumes.remove(name)
    return int(shown.text) * 1024


def _hundred(site: DirectorySite, image: MapId, sizes: Sizes) -> dict[str, object]:
    """A hundred volumes of one image: the last costs what the first did."""
    names = [new_name() for _ in range(100)]
    spent = [timed(partial(_create, site, name, sizes.image)) for name in names]
    facts = site.volumes.facts(names[-1])
    assert facts.origin == image, "the script cloned something else"
    for name in names:
        site.volumes.remove(name)
    first, last = percentile(spent[:10], 50), percentile(spent[90:], 50)
    return {"hundred_clones_s": round(sum(spent), 2), "clone_100th_ratio": round(last / first, 3)}
