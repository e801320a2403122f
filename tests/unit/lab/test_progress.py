"""What a person sees."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from snf_lab.progress import Progress, Step, render_bar, render_seconds, render_table, tail


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_step_is_a_line_at_its_start_and_one_at_its_end() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(out, clock=clock).step("boot") as step:
        clock.now = 3.25
        step.note = "2 nodes"
    assert out.getvalue() == ".. boot\nok boot  2 nodes  3.2 s\n"


def test_without_a_terminal_a_long_step_gives_signs_of_life() -> None:
    out = io.StringIO()
    with Progress(out, heartbeat_s=0.02).step("long"):
        for _ in range(1000):
            if out.getvalue().count("\n") >= 3:
                break
            time.sleep(0.01)
    assert out.getvalue().count("\n") >= 4
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_the_line_moves_and_is_wiped_at_the_end() -> None:
    out = Terminal()
    with Progress(out).step("long"):
        time.sleep(0.3)
    assert "\r\x1b[K|  long" in out.getvalue() or "\r\x1b[K/  long" in out.getvalue()
    assert out.getvalue().splitlines()[-1].endswith("s")
    assert "\r\x1b[Kok long" in out.getvalue()


def test_a_failed_step_shows_the_end_of_its_log_once(tmp_path: Path) -> None:
    log, out = tmp_path / "log", io.StringIO()
    log.write_text("".join(f"line {n}\n" for n in range(100)) + "\x1b[31mred\n")
    progress = Progress(out)
    with pytest.raises(ValueError, match="no"), progress.step("outer", log=log), progress.step("inner", log=log):
        raise ValueError("no")
    shown = out.getvalue()
    assert shown.count("line 99") == 1
    assert "line 60" not in shown
    assert "\x1b" not in shown
    assert re.search(r"^  !! inner  \d+\.\d s  failed$", shown, re.MULTILINE)


def test_an_interrupted_step_shows_no_log(tmp_path: Path) -> None:
    log, out = tmp_path / "log", io.StringIO()
    log.write_text("line\n")
    with pytest.raises(KeyboardInterrupt), Progress(out).step("make", log=log):
        raise KeyboardInterrupt
    assert out.getvalue().splitlines()[-1].endswith("interrupted")


def test_the_bar_of_a_step_is_measured_on_its_last_time(tmp_path: Path) -> None:
    clock, durations = Clock(), tmp_path / "durations.json"
    progress = Progress(io.StringIO(), durations=durations, clock=clock)
    with progress.step("make"):
        clock.now += 10
    with progress.step("make") as again:
        assert again.reached(5.0) == 0.5
        assert again.reached(50.0) == 0.99
    assert progress.taken["make"] == 0.0


def test_durations_that_cannot_be_read_are_only_no_bar(tmp_path: Path) -> None:
    durations = tmp_path / "durations.json"
    durations.write_text("[1")
    with Progress(io.StringIO(), durations=durations).step("make") as step:
        assert step.reached(1.0) is None


def test_a_known_fraction_goes_before_a_guess() -> None:
    step = Step("copy", expected_s=100.0)
    step.fraction = 0.25
    step.note = "64 MiB"
    assert step.line(2.0) == "copy  [#####...............]  64 MiB  2.0 s"


@pytest.mark.parametrize(("fraction", "bar"), [(-1, "...."), (0.5, "##.."), (0.99, "###."), (2, "####")])
def test_a_bar_stays_in_its_frame(fraction: float, bar: str) -> None:
    assert render_bar(fraction, 4) == f"[{bar}]"


def test_long_times_are_in_minutes() -> None:
    assert render_seconds(99.94) == "99.9 s"
    assert render_seconds(125.0) == "2 min 05 s"


def test_a_table_has_straight_columns() -> None:
    assert render_table([("NODE", "STATE"), ("n", "on")]) == "NODE  STATE\nn     on"


def test_the_tail_of_no_file_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "absent") == []


def test_the_tail_of_a_test_log_ends_with_the_traceback_and_not_with_durations(tmp_path: Path) -> None:
    durations = [f"{n}.00s call     tests/real/test_it.py::test_{n}" for n in range(300, 2, -1)]
    (tmp_path / "log").write_text(
        "\n".join(
            [
                "=================================== FAILURES ===================================",
                "E       assert 1 == 2",
                "============================= slowest durations ==============================",
                *durations,
                "",
                "(4062 durations < 2s hidden.  Use -vv to show these durations.)",
                "=========================== short test summary info ============================",
                "FAILED tests/real/test_it.py::test_it",
                "================== 1 failed, 1421 passed in 900.04s (0:15:00) ==================",
            ]
        )
    )
    assert [line.strip("= ") for line in tail(tmp_path / "log")] == [
        *("FAILURES", "E       assert 1 == 2"),
        *("short test summary info", "FAILED tests/real/test_it.py::test_it"),
        "1 failed, 1421 passed in 900.04s (0:15:00)",
    ]
