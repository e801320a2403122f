"""Long runs of what runs a little each day: the models of the store and the volumes, and every crash point on Ceph.

`./lab torture storage-models [--count N]`: N runs of the store's model (on Ceph one for each 50), a tenth of that of
each model of volumes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
VOLUMES = "tests/real/snf_extstorage"


@dataclass(frozen=True)
class Run:
    name: str
    words: tuple[str, ...]
    environ: dict[str, str]


def plan_runs(count: int) -> list[Run]:
    tenth = {"SNF_MODEL_RUNS": str(max(1, count // 10))}
    every = {"SNF_CRASH_STEPS": "all"}
    few = {"SNF_STORE_RUNS_ON_CEPH": str(max(1, count // 50))}
    return [
        Run("store-model", ("tests/real/store/test_model.py", "-k", "directory"), {"SNF_STORE_RUNS": str(count)}),
        Run("store-model-on-ceph", ("tests/real/store/test_model.py", "-k", "ceph"), few),
        Run("directory-model", (f"{VOLUMES}/test_model.py", "-k", "directory"), tenth),
        Run("pool-model", (f"{VOLUMES}/test_model.py", "-k", "pool"), tenth),
        Run("store-crashes-on-ceph", ("tests/real/store/test_crash_points.py", "-k", "ceph"), every),
        Run("rados-crashes", (f"{VOLUMES}/test_rados_crashes.py",), every),
    ]


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="model_rounds", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="runs of the store's model (2000)")
    parser.add_argument("--jobs", type=int, default=1, help="ignored: one after the other")
    arguments = parser.parse_args(words)
    begun, passed, runs = time.monotonic(), 0, plan_runs(arguments.count)
    for one in runs:
        pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *one.words]
        done = subprocess.run(
            pytest, cwd=TREE, env=os.environ | one.environ, capture_output=True, text=True, check=False
        )
        last = (done.stdout.splitlines() or [""])[-1]
        # A test that was skipped proves nothing.
        good = done.returncode == 0 and " passed" in last and "skipped" not in last
        passed += good
        print(f"{'passed' if good else 'FAILED'} {one.name}: {last}", flush=True)
        if not good:
            print(done.stdout[-20000:] + done.stderr[-2000:], flush=True)
    figures = {"attacks_passed": passed, "attacks_total": len(runs), "seconds": round(time.monotonic() - begun)}
    print(json.dumps(figures))
    return 0 if passed == len(runs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
