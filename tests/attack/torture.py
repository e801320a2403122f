"""Run many attacks, some at a time, and count: python3 -m tests.attack.torture NAME [--count N] [--jobs N].

Every line is one attack; the last is JSON: attacks_passed, attacks_total, fuzz_images, seconds. Exits with 1 when one
did not pass. Needs root, the helper VM's image, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.attack.attempt import LIMIT_S, Attack, Verdict, attempt
from tests.attack.corpus import links, mutations, signatures, tables, trees
from tests.real.snf_image_host.node import real_helper

GROUPS: Mapping[str, Callable[[], tuple[Attack, ...]]] = {
    "fuzz": mutations.corpus,
    "tables": tables.corpus,
    "signatures": signatures.corpus,
    "links": links.corpus,
    "trees": trees.corpus,
}


def chosen(name: str, count: int | None) -> tuple[Attack, ...]:
    """The attacks of a group, of all groups, or the single one of that name; the first `count` of each group."""
    groups = GROUPS.values() if name == "all" else [GROUPS[name]] if name in GROUPS else []
    found = tuple(attack for group in groups for attack in group()[:count])
    return found or tuple(a for group in GROUPS.values() for a in group() if a.name == name)


def run(attacks: Sequence[Attack], *, helper: Path, jobs: int, limit_s: int) -> list[Verdict]:
    """The verdicts in the order of the attacks; each is said as soon as it is known."""

    def one(attack: Attack) -> Verdict:
        verdict = attempt(attack, helper=helper, limit_s=limit_s)
        said = "passed" if not verdict.faults else "FAILED"
        print(f"{said} {verdict.attack} {verdict.seconds} s: {_short(verdict)}", flush=True)
        for fault in verdict.faults[:20]:
            print(f"    {fault[:1000]}", flush=True)
        return verdict

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        return list(pool.map(one, attacks))


def _short(verdict: Verdict) -> str:
    if verdict.returncode == 0:
        return "deployed"
    return verdict.sentence.partition(" was not deployed: ")[2].partition("; both ends")[0][:240]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("name", help=f"all, one of {', '.join(GROUPS)}, or the name of a single attack")
    parser.add_argument("--count", type=int, help="only so many of each group")
    parser.add_argument("--jobs", type=int, default=2, help="deployments at the same time (2)")
    parser.add_argument("--limit", type=int, default=LIMIT_S, metavar="S", help=f"seconds of one helper VM ({LIMIT_S})")
    arguments = parser.parse_args(argv)
    helper = real_helper()
    attacks = chosen(arguments.name, arguments.count)
    if helper is None or not attacks:
        what = "there is no image of the helper VM" if helper is None else f"there is no attack {arguments.name!r}"
        print(f"torture: {what}", file=sys.stderr)
        return 64
    begun = time.monotonic()
    try:
        verdicts = run(attacks, helper=helper, jobs=arguments.jobs, limit_s=arguments.limit)
    finally:
        mutations.forget_bases()
    figures = {
        "attacks_passed": sum(not v.faults for v in verdicts),
        "attacks_total": len(verdicts),
        "fuzz_images": sum(v.attack.startswith("fuzz-") for v in verdicts),
        "seconds": round(time.monotonic() - begun),
    }
    print(json.dumps(figures))
    return 0 if figures["attacks_passed"] == figures["attacks_total"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
