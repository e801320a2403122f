"""`snf-image report INSTANCE`: the last deployment, from the report that it left."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from snf_image_host import journal, watch
from snf_image_host.commands import Out
from snf_image_host.report import Report, Step, read_report
from snf_image_host.settings import Settings
from synnefo_light.errors import UserError
from synnefo_light.records import dump_json
from synnefo_light.units import human

NAME: Final = "report"
SUMMARY: Final = "show the report of an instance's last deployment on this node"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="INSTANCE")
    parser.add_argument("--json", action="store_true", help="the report as it is kept, one JSON object")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    report = read_report(settings.log_dir, arguments.instance)
    alive = False
    if report.outcome == "running":  # else nobody needs the lock, which only root may look at
        alive = watch.is_held(journal.lock_of(settings.run_dir, arguments.instance))
        if not alive:  # it may have ended since the report was read
            report = read_report(settings.log_dir, arguments.instance)
    if arguments.json:
        out(dump_json(report).decode())
    else:
        for line in render(report, alive=alive):
            out(line)
    return 0 if report.outcome == "deployed" else 1


def render(report: Report, *, alive: bool) -> Iterator[str]:
    """The report for a person; `alive` is whether a deployment of the instance runs now."""
    yield f"instance   {report.instance}"
    yield f"outcome    {_outcome(report, alive)}"
    yield f"began      {_time(report.began_ms)}"
    if report.ended_ms is not None:
        yield f"ended      {_time(report.ended_ms)}, after {(report.ended_ms - report.began_ms) / 1000:.1f} s"
    yield f"program    snf-image {report.program}, helper VM {report.helper or 'not looked at'}"
    yield f"image      {report.image or '-'}{f', {human(report.image_size)}' if report.image_size else ''}"
    if report.disk_size is not None:
        yield f"disk 0     {human(report.disk_size)}"
    if report.accel:
        yield f"helper     {report.accel}"
    yield from (f"parameter  {name} = {value}" for name, value in report.parameters.items())
    yield from (f"step       {_step(step)}" for step in report.steps)
    yield from (f"warning    {text}" for text in report.warnings)
    if report.figures is not None:
        yield f"figures    {_figures(report.figures)}"
    yield from (f"console    {line}" for line in report.console)
    if report.sentence:
        yield f"reason     {report.sentence}"


def _outcome(report: Report, alive: bool) -> str:
    if report.outcome == "deployed":
        return "deployed"
    if report.outcome == "failed":
        return f"failed at the step {report.step}"
    if alive:
        return f"is running: snf-image watch {report.instance}"
    return "ended without a word: it was killed, or the node lost power; reinstall or remove the instance"


def _step(step: Step) -> str:
    if step.state == "skipped":
        return f"{step.name} skipped: {step.note}"
    if step.state == "running":
        return f"{step.name} did not end"
    return f"{step.name} done in {step.ms / 1000:.1f} s"


def _figures(figures: journal.Finished) -> str:
    return (
        f"{human(figures.copied)} written in {figures.copy_ms / 1000:.1f} s, "
        f"helper VM {figures.helper_ms / 1000:.1f} s ({figures.helper_cpu_ms / 1000:.1f} s of CPU, "
        f"{human(figures.helper_peak_rss)}), all in {figures.total_ms / 1000:.1f} s"
    )


def _time(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        raise UserError(f"the report has a time that is none: {at_ms}") from None
