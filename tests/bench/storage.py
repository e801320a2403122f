"""The figures of storage: `python -m tests.bench.storage FOLDER [--rounds N]`; the last line is one JSON object.

`./lab bench storage` calls this. Needs root, /usr/bin/python3 with the packages that it names, and room in FOLDER,
which is made and is cleared afterwards. `--only` measures some parts, for who works on one of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_lab.bench_storage import clear
from snf_lab.progress import render_table

from synnefo_light.errors import Error
from tests.bench import (
    storage_clone,
    storage_dedup,
    storage_deploy,
    storage_first,
    storage_pause,
    storage_rates,
    storage_script,
    store,
)
from tests.bench.storage_figures import plan_verdicts
from tests.bench.storage_place import directory_site, rados_site
from tests.bench.storage_sizes import Sizes, sizes

Figures = dict[str, object]
PARTS: Final = (
    *("clone", "full", "script", "rates", "pause", "store", "deploy", "dedup"),
    *("rados-clone", "rados-rates", "rados-first"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the lab makes, and who calls this alone may leave out: then what needs it is not measured."""

    image: Path | None
    helper: Path | None
    debs: Path | None


class Bench:
    def __init__(self, folder: Path, chosen: Sizes, only: frozenset[str], lab: Given) -> None:
        self.folder, self.sizes, self.only, self.lab = folder, chosen, only, lab
        self.figures: Figures = dict(chosen.named())

    def part(self, name: str, act: Callable[[], Mapping[str, object]]) -> None:
        if name in self.only:
            began = time.monotonic()
            self.figures |= act()
            print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)

    def on_directory(self) -> None:
        place, given = self.folder / "directory", self.sizes
        with directory_site(place, size=given.xfs) as site:
            self.part("clone", lambda: storage_clone.measure_directory(site, given))
            self.part("script", lambda: storage_script.measure_scripts(site, given))
            self.part("full", lambda: storage_clone.measure_full(site, given))
            if self.only & {"rates", "pause"}:
                dense = storage_clone.register_dense(site.catalog, site.scratch / "dense", size=given.disk, stamp=3)
                self.part("rates", lambda: storage_rates.measure_directory(site, dense, given))
                self.part("pause", lambda: storage_pause.measure_pause(site, dense, given))
            self.part("store", lambda: store.measure(site.scratch))

    def on_debian(self) -> None:
        """Of a real image; each in a store of its own."""
        given, image, helper, debs = self.sizes, self.lab.image, self.lab.helper, self.lab.debs
        if image is not None and helper is not None and "deploy" in self.only:
            with directory_site(self.folder / "deploy", size=given.xfs) as site:
                self.part("deploy", lambda: storage_deploy.measure_deploy(site, image, helper, given))
        if image is not None and debs is not None and "dedup" in self.only:
            with directory_site(self.folder / "dedup", size=given.xfs) as site:
                self.part("dedup", lambda: storage_dedup.measure_dedup(site, image, debs, given))

    def on_rados(self) -> None:
        place, given = self.folder / "rados", self.sizes
        place.mkdir(parents=True)
        with rados_site(place, objectstore="bluestore", size=given.rados, object_size=None) as site:
            self.part("rados-clone", lambda: storage_clone.measure_rados(site, place, given))
            if self.only & {"rados-rates", "rados-first"}:
                dense = storage_clone.register_dense(site.catalog, place / "dense", size=given.rados_data, stamp=4)
                self.part("rados-first", lambda: storage_first.measure_first_writes(site, dense, given))
                self.part("rados-rates", lambda: storage_rates.measure_rados(site, dense, given))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made, and cleared when it ends")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="1 is a quick look at small sizes")
    parser.add_argument("--only", metavar="PART,...", default=",".join(PARTS), help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a raw image of Debian, for deploy and dedup")
    parser.add_argument("--helper", type=Path, metavar="FOLDER", help="the helper VM's image, for deploy")
    parser.add_argument("--debs", type=Path, metavar="FOLDER", help="packages to install, for dedup")
    arguments = parser.parse_args()
    only = frozenset(arguments.only.split(","))
    if unknown := only - set(PARTS):
        parser.error(f"{sorted(unknown)[0]} is no part")
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} is there already, and this removes it when it ends; name a new one")
    given = Given(image=arguments.image, helper=arguments.helper, debs=arguments.debs)
    bench = Bench(arguments.folder, sizes(arguments.rounds), only, given)
    began = time.monotonic()
    try:
        arguments.folder.mkdir(parents=True)
        arguments.folder.chmod(0o755)
        tempfile.tempdir = str(arguments.folder)  # what is made by the way goes with it
        if only & {"clone", "full", "script", "rates", "pause", "store"}:
            bench.on_directory()
        bench.on_debian()
        if only & {part for part in PARTS if part.startswith("rados")}:
            bench.on_rados()
    except Error as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return e.exit_code
    finally:
        clear(arguments.folder)
    bench.figures["bench_s"] = round(time.monotonic() - began)
    verdicts = plan_verdicts(bench.figures)
    if verdicts:
        print(render_table([("figure", "measured", "goal", ""), *verdicts]))
    bench.figures["missed"] = [row[0] for row in verdicts if row[3] == "missed"]
    print(json.dumps(bench.figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
