"""A program of the administrator's: how it is started, and what becomes of its words."""

from __future__ import annotations

import base64

import pytest
from snf_image_helper.actions import RunScript, describe
from snf_image_helper.custom_task import LOGGED_LINES, printable, run_script
from snf_image_helper.image import ImageError, Skipped
from snf_image_helper.jail import KEPT
from snf_image_helper.tasks import TASKS

from synnefo_light.run import Completed
from tests.fake_runner import Answer, FakeRunner
from tests.unit.snf_image_helper.fake_image import fake_image, manifest

SCRIPT = b"#!/bin/sh\necho secret\n"


def test_the_script_is_planned_with_what_it_is_told() -> None:
    (action,) = TASKS["custom_task"].plan(fake_image(), manifest(custom_task=base64.b64encode(SCRIPT).decode()))
    assert isinstance(action, RunScript) and action.script == SCRIPT
    assert dict(action.environment)["SNF_IMAGE_TARGET"] == "/"
    assert dict(action.environment)["SNF_IMAGE_PROPERTY_USERS"] == "root"
    assert "secret" not in describe(action) + repr(action)


def test_without_a_script_nothing_is_run() -> None:
    with pytest.raises(Skipped, match="no custom task"):
        TASKS["custom_task"].plan(fake_image(), manifest())


def test_the_script_goes_in_by_standard_input_and_into_its_own_namespaces() -> None:
    runner = FakeRunner()
    run_script(runner, SCRIPT, {}, "/mnt")
    (call,) = runner.calls
    assert call.stdin == SCRIPT and "secret" not in " ".join(call.argv)
    assert {"--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--net", "--ipc"} <= {*call.argv}
    assert 0 < call.timeout_s <= 3600


def test_what_it_prints_goes_to_the_log_bounded_and_tame(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        words = Answer(stdout=b"\x1b[31mred\n" + b"x" * 5000 + b"\n" + b"line\n" * 1000)
        run_script(FakeRunner(words), b"", {}, "/mnt")
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "custom task:  [31mred"
    assert len(said) == LOGGED_LINES + 1 and max(map(len, said)) < 500
    assert said[-1] == "custom task: and more lines"


def test_of_endless_words_the_first_and_the_last_errors_are_kept() -> None:
    endless = Completed(argv=(), returncode=1, stdout=b"first\n" + b"\n" * 10**7, stderr=b"\xff" * 10**7 + b"\nlast\n")
    lines = printable(endless)
    assert (lines[0], lines[-1]) == ("first", "last") and sum(map(len, lines)) < 1000


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(returncode=3, stdout=b"one\n", stderr=b"two\n\n"), "the custom task exited with 3: two"),
        (Answer(returncode=1), "the custom task exited with 1: it said nothing"),
        (Answer(returncode=-9, stdout=b"x"), "the custom task was killed by SIGKILL: x"),
    ],
)
def test_a_script_that_fails_fails_the_deployment_with_its_last_words(answer: Answer, says: str) -> None:
    with pytest.raises(ImageError) as failed:
        run_script(FakeRunner(answer), SCRIPT, {}, "/mnt")
    assert str(failed.value) == says


def test_no_power_over_the_vm_is_kept() -> None:
    """capability(7): DAC_READ_SEARCH, NET_ADMIN, SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, MKNOD."""
    assert not KEPT & {2, 12, 16, 17, 19, 21, 22, 27}
