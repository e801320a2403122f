"""The figures of the benchmark of conversions."""

from __future__ import annotations

import json

import pytest
from snf_lab.bench_convert import DATA_MIB, MIB, Sample, figures, parse_journal

from synnefo_light.errors import PeerError

JOURNAL = [
    {"at_ms": 1, "type": "task-done", "task": "umount", "task_ms": 7},
    {"at_ms": 2, "type": "task-done", "task": "convert", "task_ms": 1500},
    {"at_ms": 3, "type": "finished", "helper_ms": 9000},
]


def test_times_are_read_out_of_the_journal() -> None:
    assert parse_journal("".join(json.dumps(line) + "\n" for line in JOURNAL)) == (1500, 9000)


@pytest.mark.parametrize("without", [1, 2])
def test_a_deployment_that_did_not_convert_gives_no_figures(without: int) -> None:
    lines = [json.dumps(line) for n, line in enumerate(JOURNAL) if n != without]
    with pytest.raises(PeerError, match="no conversion that ended"):
        parse_journal("\n".join(lines))


def test_figures_are_medians_and_a_ratio_of_times() -> None:
    taken = [Sample(helper_s=s, host_s=1.0, vm_s=9.0) for s in (1.0, 2.0, 30.0)]
    found = figures({"plain": taken, "compressed": [Sample(helper_s=4.0, host_s=2.0, vm_s=8.0)]})
    mb = DATA_MIB * MIB / 1e6
    assert (found["convert_plain_MBps"], found["convert_plain_ratio"]) == (round(mb / 2, 1), 2.0)
    assert (found["convert_MBps"], found["convert_host_MBps"]) == (round(mb / 4, 1), round(mb / 2, 1))
