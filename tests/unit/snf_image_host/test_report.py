"""The report that a deployment leaves: whole, bounded, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_image_host import journal
from snf_image_host.commands.report import render
from snf_image_host.journal import Entry
from snf_image_host.report import LIMIT, Account, path_of, read_report, shown_parameters

from synnefo_light.errors import EnvironmentFault, UserError

FIGURES = journal.Finished(
    copied=1 << 30,
    copy_ms=2000,
    accel="tcg",
    helper_ms=4100,
    helper_boot_ms=1,
    helper_cpu_ms=3900,
    helper_peak_rss=1 << 28,
    host_peak_rss=1,
    total_ms=6200,
)
RECORDS: tuple[journal.Record, ...] = (
    journal.Started(instance="web1", image="debian.raw", size=1 << 30, disk=2 << 30, pid=1),
    journal.CopyProgressed(done=0, total=1 << 30),
    journal.CopyDone(written=1 << 20, copy_ms=2000),
    journal.HelperStarted(accel="tcg", reason="there is no /dev/kvm"),
    journal.TaskStarted(task="mount"),
    journal.TaskDone(task="mount", task_ms=120),
    journal.TaskSkipped(task="swap", reason="none asked for"),
    journal.TaskStarted(task="network"),
    journal.Warned(task="network", text="odd"),
)


def written(folder: Path, *records: journal.Record, console: tuple[str, ...] = (), **parameters: str) -> Path:
    taken = Account(path_of(folder, "web1"), "web1", image="debian.raw", parameters=parameters)
    for n, record in enumerate(records):
        taken(Entry(at_ms=taken.report.began_ms + 100 * n, record=record))
    taken.write(console)
    return path_of(folder, "web1")


def shown(folder: Path, *, alive: bool = False) -> list[str]:
    return list(render(read_report(folder, "web1"), alive=alive))


def test_a_failed_deployment_is_told_to_its_sentence(tmp_path: Path) -> None:
    failed = journal.Failed(step="network", reason="web1 was not deployed: why; so do that")
    path = written(tmp_path, *RECORDS, failed, console=("last words",), img_format="diskdump")
    assert path.stat().st_mode & 0o777 == 0o640
    lines = shown(tmp_path)
    assert lines[1] == "outcome    failed at the step network"
    assert lines[3].endswith("after 0.9 s")
    assert lines[5:] == [
        "image      debian.raw, 1 GiB",
        "disk 0     2 GiB",
        "helper     tcg",
        "parameter  img_format = diskdump",
        "step       copy done in 2.0 s",
        "step       mount done in 0.1 s",
        "step       swap skipped: none asked for",
        "step       network did not end",
        "warning    network: odd",
        "console    last words",
        "reason     web1 was not deployed: why; so do that",
    ]


def test_a_good_one_ends_with_its_figures(tmp_path: Path) -> None:
    written(tmp_path, *RECORDS, journal.TaskDone(task="network", task_ms=1), FIGURES)
    assert shown(tmp_path)[-1] == (
        "figures    1 GiB written in 2.0 s, helper VM 4.1 s (3.9 s of CPU, 256 MiB), all in 6.2 s"
    )


@pytest.mark.parametrize(("alive", "says"), [(True, "is running"), (False, "was killed")])
def test_one_that_did_not_end_is_running_or_was_killed(tmp_path: Path, alive: bool, says: str) -> None:
    written(tmp_path, *RECORDS)
    assert says in shown(tmp_path, alive=alive)[1]


def test_what_may_be_a_secret_is_not_kept() -> None:
    given = {
        "img_id": "https://user:geheim@server/x.raw?token=geheim#geheim",
        "img_passwd": "geheim",
        "img_passwd_hash": "$6$geheim",
        "os_product_key": "geheim",
        "cloud_userdata": "geheim",
        "img_personality": '[{"path":"/x","contents":"geheim"}]',
        "img_properties": '{"USERS":"root bob","CUSTOM_TASK":"geheim","exclude_task_swap":true,"odd":"geheim"}',
        "inst_properties": "geheim, no JSON",
        "something_new": "geheim",
        "img_checksum": "sha256:00",
    }
    kept = shown_parameters(given)
    assert set(kept) == set(given)
    assert "geheim" not in str(kept)
    assert kept["img_id"] == "https://server/x.raw?(hidden)"
    assert kept["img_checksum"] == "sha256:00"
    assert kept["img_passwd"] == "(6 characters)"
    assert kept["img_properties"] == "CUSTOM_TASK=(hidden) USERS=root bob exclude_task_swap=True odd=(hidden)"


@pytest.mark.parametrize("image", ["debian#12?.raw", "local://a/b#1.raw", "file:///srv/a?b#c"])
def test_the_name_of_a_file_is_kept_whole(image: str) -> None:
    assert shown_parameters({"img_id": image}) == {"img_id": image}


def test_it_is_bounded_and_readable_whatever_the_helper_says(tmp_path: Path) -> None:
    records = [journal.TaskSkipped(task=f"t{n}", reason="\x1b\udc80" * 5000) for n in range(500)]
    warnings = [journal.Warned(task=None, text="\x00" * 5000) for _ in range(100)]
    path = written(
        tmp_path,
        *records,
        *warnings,
        console=("\x1b" * 9999,) * 1000,
        **dict.fromkeys(map(str, range(99)), "x"),
        img_id="\udcff" * 9999,
    )
    assert path.stat().st_size <= LIMIT
    assert len(shown(tmp_path)) <= 350


@pytest.mark.parametrize("name", ["web2", "../web1", ".web1", "a/b", "x" * 5000])
def test_there_is_no_report_of_an_instance_that_was_not_deployed_here(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="holds no report of"):
        read_report(tmp_path, name)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version":2}', b"x" * (LIMIT + 1)])
def test_a_damaged_report_is_said_to_be_that(tmp_path: Path, content: bytes) -> None:
    path_of(tmp_path, "web1").write_bytes(content)
    with pytest.raises(EnvironmentFault):
        read_report(tmp_path, "web1")
