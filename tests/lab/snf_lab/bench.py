"""Benchmarks: what each measures, and how one is found. Each ends with one line of JSON, for machines and for records.

Three rounds by default; the median counts and every sample is shown, because a lab machine has other work to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from snf_lab import bench_deploy, bench_helper, bench_images, bench_storage
from snf_lab.lab import Lab
from synnefo_light.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    summary: str
    run: Callable[..., Mapping[str, object]]  # (lab, *, release, rounds, peers)


BENCHES: Mapping[str, Bench] = {
    "deploy": Bench(
        summary="gnt-instance add with snf-image, against libguestfs on the same image and disk size",
        run=bench_deploy.run_bench,
    ),
    "helper": Bench(
        summary="the helper VM's time line, the bare kernel, four deployments at once; no cluster",
        run=bench_helper.run_bench,
    ),
    "images": Bench(
        summary="the helper VM against libguestfs, its time line, conversions, attacks",
        run=bench_images.run_bench,
    ),
    "storage": Bench(
        summary="clones, snapshots, reads and writes, the store: beside files, RBD and SHA-256; no cluster",
        run=bench_storage.run_bench,
    ),
}


def run_bench(lab: Lab, name: str, *, release: str, rounds: int, peers: bool) -> Mapping[str, object]:
    """Raises UserError when there is no such benchmark, or no round is asked for."""
    if name not in BENCHES:
        raise UserError(f"benchmark {name!r} is unknown; known are {', '.join(BENCHES)}")
    if rounds < 1:
        raise UserError(f"a benchmark has at least 1 round, not {rounds}")
    return BENCHES[name].run(lab, release=release, rounds=rounds, peers=peers)
