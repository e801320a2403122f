"""How long Ganeti waits for a hook, by Ganeti's own runner of hooks. To be run as root on a node of a cluster.

    python3 tests/bench/hooks.py [ROUNDS]

The last line is JSON: milliseconds that one run of the hook takes, and that an interpreter that does nothing takes.
The events go into the node's spool and are removed again.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SHARE = Path("/etc/ganeti/share")
HOOKS = Path("/etc/ganeti/hooks")
SPOOL = Path("/var/spool/synnefo-light/events")


def environment(phase: str) -> dict[str, str]:
    """An instance with a NIC and a disk and 80 parameters of its hypervisor, in one phase of a start."""
    view = {"NAME": "bench", "PRIMARY": "node1", "STATUS": "down", "NIC_COUNT": "1", "DISK_COUNT": "1"}
    view |= {"NIC0_MAC": "aa:00:00:00:00:01", "NIC0_MODE": "bridged", "DISK0_SIZE": "1024", "TAGS": "a b"}
    view |= {f"HV_parameter{n}": "value" for n in range(80)} | {"BE_maxmem": "512", "BE_vcpus": "1"}
    common = {
        "HOOKS_VERSION": "2",
        "HOOKS_PATH": "instance-start",
        "HOOKS_PHASE": phase,
        "OP_CODE": "OP_INSTANCE_STARTUP",
    }
    found = {f"GANETI_{key}": value for key, value in common.items()}
    found |= {f"GANETI_INSTANCE_{key}": value for key, value in view.items()}
    if phase == "post":
        found |= {f"GANETI_POST_INSTANCE_{key}": value for key, value in {**view, "STATUS": "up"}.items()}
    return {"PATH": "/sbin:/bin:/usr/sbin:/usr/bin", **found}


def runner() -> Callable[[str, str, Mapping[str, str]], list[Any]]:
    """RunHooks of Ganeti's node daemon."""
    sys.path.insert(0, str(SHARE))
    run: Callable[[str, str, Mapping[str, str]], list[Any]] = (
        importlib.import_module("ganeti.backend").HooksRunner(str(HOOKS)).RunHooks
    )
    return run


def quantiles(times_ms: list[float]) -> dict[str, float]:
    ordered = sorted(times_ms)
    return {f"p{n}": round(ordered[min(len(ordered) - 1, len(ordered) * n // 100)], 1) for n in (50, 99)}


def main(rounds: int) -> None:
    run = runner()
    kept = set(os.listdir(SPOOL))
    hook, bare = [], []
    for n in range(rounds):
        phase = ("pre", "post")[n % 2]
        started = time.perf_counter()
        ((_, result, output),) = run("instance-start", phase, environment(phase))
        hook.append((time.perf_counter() - started) * 1000)
        if (result, output) != (2, ""):  # HKR_SUCCESS
            sys.exit(f"the hook ended with {result}: {output}")
        started = time.perf_counter()
        subprocess.run(["/usr/bin/python3", "-IS", "-c", "pass"], check=True)
        bare.append((time.perf_counter() - started) * 1000)
    left = [name for name in os.listdir(SPOOL) if name not in kept]
    for name in left:
        (SPOOL / name).unlink()
    figures = {f"hook_ms_{k}": v for k, v in quantiles(hook).items()} | {
        f"python_ms_{k}": v for k, v in quantiles(bare).items()
    }
    print(json.dumps({**figures, "rounds": rounds, "events": len(left)}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
