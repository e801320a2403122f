"""`snf-image report`: what each way to end leaves for an administrator."""

from __future__ import annotations

import json
import os
import subprocess
import time

from tests.real.snf_image_host.node import COMMAND, Fake


def test_a_failed_deployment_leaves_its_sentence_its_steps_and_the_console(node: Fake) -> None:
    node.image()
    node.behave("fails-at:mount")
    done = node.create(node.disk(), img_passwd="geheim")
    shown = node.command("report", "web1")
    assert shown.returncode == 1, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[1] == "outcome    failed at the step mount"
    assert lines[-1] == "reason     " + done.sentence.removeprefix("snf-image: ")
    assert any(line.startswith("step       copy done in ") for line in lines)
    assert "step       mount did not end" in lines
    assert "parameter  img_passwd = (6 characters)" in lines
    assert "geheim" not in shown.stdout + (node.folder / "log" / "web1.report.json").read_text()


def test_it_survives_a_reboot_which_empties_the_run_folder(node: Fake) -> None:
    node.image()
    assert node.create(node.disk()).returncode == 0
    for entry in (node.folder / "run").iterdir():
        entry.unlink()
    shown = node.command("report", "--json", "web1")
    assert shown.returncode == 0, shown.stderr
    report = json.loads(shown.stdout)
    assert report["outcome"] == "deployed" and report["figures"]["copied"] == 3 * 65536
    assert {step["state"] for step in report["steps"]} <= {"done", "skipped"}


def test_one_refused_for_its_parameters_has_a_report_too(node: Fake) -> None:
    assert node.create(node.disk(), img_colour="red").returncode == 2
    shown = node.command("report", "web1")
    assert shown.returncode == 1 and "img_colour" in shown.stdout.splitlines()[-1]


def test_one_that_was_killed_is_told_from_one_that_runs(node: Fake) -> None:
    node.image()
    node.behave("hang")
    process = node.start("create", node.environment("create", node.disk()))
    journal, deadline = node.folder / "run" / "web1.jsonl", time.monotonic() + 20
    while not (journal.exists() and "helper-started" in journal.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running = node.command("report", "web1")
    process.kill()
    process.communicate(timeout=20)
    killed = node.command("report", "web1")
    assert running.returncode == killed.returncode == 1
    assert "is running" in running.stdout and "it was killed" in killed.stdout
    node.wait_dead()


def test_there_is_none_of_an_unknown_instance(node: Fake) -> None:
    shown = node.command("report", "web9")
    assert shown.returncode == 2 and "holds no report of 'web9'" in shown.stderr


def test_one_of_the_log_folders_group_reads_a_report_that_has_ended(node: Fake) -> None:
    node.image()
    assert node.create(node.disk()).returncode == 0
    log = node.folder / "log"
    os.chown(log, 0, 65534)
    log.chmod(0o750)
    os.chown(log / "web1.report.json", 0, 65534)
    env = {"SNF_IMAGE_CONFIG": str(node.folder / "snf-image.toml"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    lower = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", str(COMMAND)]
    shown = subprocess.run([*lower, "report", "web1"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0 and "outcome    deployed" in shown.stdout, shown.stderr
