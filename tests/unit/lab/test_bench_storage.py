"""The figures of storage: what is made of samples, of fio's answers and of what an earlier run left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from snf_lab.bench_storage import parse_last, plan_clear
from snf_lab.mounts import Loop

from synnefo_light.errors import PeerError
from tests.bench.storage_figures import percentile, plan_verdicts, ratio
from tests.bench.storage_fio import (
    LOADS,
    Done,
    Latencies,
    Load,
    Rate,
    Target,
    parse_fio,
    parse_latency_log,
    plan_run,
)
from tests.bench.storage_pause import Windows
from tests.bench.storage_place import BLOCK, plan_runs
from tests.bench.storage_rates import NOT_CACHED, SMALL, flat_rates, ratios
from tests.bench.storage_sizes import GIB, sizes


def answer(**changed: object) -> str:
    part = {"iops": 1000.5, "bw_bytes": 4_098_048, "runtime": 2000, "total_ios": 2001}
    idle = {"iops": 0.0, "bw_bytes": 0, "runtime": 0, "total_ios": 0}
    return json.dumps({"jobs": [{"error": 0, "read": part, "write": idle, **changed}]})


def test_a_percentile_is_a_sample_that_was_taken() -> None:
    samples = [float(n) for n in range(1, 101)]
    assert [percentile(samples, at) for at in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0, 1.0, 2.0], 99) == 3


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="of nothing"):
        percentile([], 50)


def test_a_ratio_is_of_medians_so_one_bad_round_does_not_count() -> None:
    assert ratio([1.0, 1.2, 90.0], [1.0, 1.0, 1.1]) == 1.2


def test_fio_is_read_whatever_its_engine_says_before() -> None:
    found = parse_fio("rbd: 16.2\n" + answer())
    assert found == Rate(iops=1000.5, MBps=4.1, seconds=2.0, count=2001)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (answer(error=5), "ended with error 5"),
        (answer(read={"iops": 0, "bw_bytes": 0, "runtime": 0, "total_ios": 0}), "did 0 reads and writes"),
        ("", "cannot be read"),
        ('{"jobs": []}', "cannot be read"),
    ],
)
def test_a_fio_that_did_not_do_its_work_counts_for_nothing(text: str, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        parse_fio(text)


def test_a_part_of_a_second_is_told_in_milliseconds_which_fio_understands() -> None:
    words = plan_run(Target.of_file("x", "/x"), Load(name="r", pattern="randread", depth=1), size=4096, seconds=0.7)
    assert "--runtime=700ms" in words


def test_a_pause_is_the_longest_of_what_was_under_way() -> None:
    log = "1000, 2000000, 1, 4096, 0, 0\n1500, 400000000, 1, 4096, 0, 0\n1600, 1000000, 1, 4096, 0, 0\n"
    latencies = Latencies(parse_latency_log(log))
    assert latencies.worst(1.2, 1.3) == 0.4
    assert latencies.worst(1.55, 1.7) == 0.001
    assert latencies.worst(2.0, 3.0) == 0


def test_a_latency_log_of_another_kind_is_refused() -> None:
    with pytest.raises(PeerError, match="latencies"):
        parse_latency_log("time, took\n")


def test_latencies_need_no_order() -> None:
    assert Latencies([Done(2.0, 0.5), Done(1.0, 0.1)]).worst(0.95, 0.96) == 0.1


def test_a_goal_that_was_not_measured_has_no_verdict() -> None:
    rows = plan_verdicts({"rbd_ratio": 0.9, "dir_ratio_qd1": 0.8})
    assert [(row[0], row[3]) for row in rows] == [("dir_ratio_qd1", "met"), ("rbd_ratio", "missed")]


def test_runs_lie_at_equal_distances_and_inside() -> None:
    assert plan_runs(size=100 * BLOCK, blocks=4, runs=2) == [0, BLOCK, 50 * BLOCK, 51 * BLOCK]


def test_rates_become_flat_keys_and_the_mean_of_their_ratios() -> None:
    def rate(value: float) -> Rate:
        return Rate(iops=value, MBps=value, seconds=1, count=1)

    rates = {
        ("a", "read_qd1"): [rate(50)],
        ("b", "read_qd1"): [rate(100)],
        ("a", "seqread"): [rate(800)],
        ("b", "seqread"): [rate(400)],
    }
    assert flat_rates(rates)["a_read_qd1_iops"] == 50
    assert flat_rates(rates)["b_seqread_MBps"] == 400
    found = ratios(rates, "a", "b", ["read_qd1", "seqread"], name="r")
    assert found == {"r": 1.0, "r_read_qd1": 0.5, "r_seqread": 2.0}


def loop(number: int, file: str, device: tuple[int, int]) -> Loop:
    return Loop(device=Path(f"/dev/loop{number}"), file=file, file_device=device, file_inode=1)


def test_what_lies_in_an_image_of_ours_goes_before_the_image_mounted_or_not() -> None:
    folder = Path("/run/bench")
    loops = (
        loop(0, "/elsewhere", (254, 0)),
        loop(1, "/run/bench/directory/xfs.img", (254, 0)),
        loop(2, "/volumes/v/disk", (7, 1)),
        loop(3, "/volumes/v/disk", (7, 0)),
    )
    assert plan_clear(loops, folder) == (Path("/dev/loop2"), Path("/dev/loop1"))


def test_figures_are_the_last_line() -> None:
    assert parse_last(["clone: 1 s", '{"a": 1}']) == {"a": 1}
    for lines in ([], ["clone: 1 s"], ["[1]"]):
        with pytest.raises(PeerError, match="last line"):
            parse_last(lines)


def test_one_round_is_a_quick_look_and_the_figures_name_the_sizes() -> None:
    quick, full = sizes(1), sizes(3)
    assert (quick.image, quick.huge) == (full.image, full.huge)
    assert quick.full < full.full == 16 * GIB
    assert full.named()["full_GiB"] == 16
    assert full.named()["rounds"] == 3


def test_what_slows_a_turn_down_slows_both_down_and_is_not_in_the_ratio() -> None:
    def rate(value: float) -> Rate:
        return Rate(iops=value, MBps=value, seconds=1, count=1)

    rates = {("a", "x"): [rate(10), rate(100), rate(20)], ("b", "x"): [rate(20), rate(200), rate(40)]}
    assert ratios(rates, "a", "b", ["x"], name="r") == {"r": 0.5}
    rates["a", "x"].append(rate(1))
    with pytest.raises(ValueError, match="zip"):
        ratios(rates, "a", "b", ["x"], name="r")


def test_only_loads_that_leave_the_disk_as_it_was_have_more_turns() -> None:
    assert {one.name for one in LOADS if one.steady} == {*SMALL, *NOT_CACHED}
    assert not any(one.steady and one.once for one in LOADS)
    assert sizes(1).turns % 2 == sizes(3).turns % 2 == 0


def test_the_time_of_a_cut_is_that_between_its_steps() -> None:
    windows = Windows(steps={"snapshot disk": [1.0, 5.0], "snapshot cut": [1.5, 5.25], "snapshot ahead": [0.0]})
    assert windows.cuts() == [0.5, 0.25]
