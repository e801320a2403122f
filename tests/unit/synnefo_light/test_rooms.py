"""A program of another room, and what its end means here."""

from __future__ import annotations

import pytest

from synnefo_light.errors import (
    ConfigError,
    EnvironmentFault,
    Error,
    HalfDone,
    PeerError,
    ProtocolError,
    ToolError,
    UsageError,
    UserError,
)
from synnefo_light.rooms import ask
from tests.fake_runner import Answer, FakeRunner


@pytest.mark.parametrize(
    ("code", "error"),
    [
        *((2, UserError), (3, EnvironmentFault), (4, PeerError), (5, ProtocolError), (6, HalfDone)),
        *((64, UsageError), (70, ToolError), (78, ConfigError)),
    ],
)
def test_an_exit_code_is_the_error_that_it_stands_for(code: int, error: type[Error]) -> None:
    runner = FakeRunner(Answer(returncode=code, stderr=b"2026 INFO a=b\nsnf-x: the \x1b[1msentence\n"))
    with pytest.raises(error) as caught:
        ask(["/usr/sbin/snf-x", "y"], package="p", timeout_s=1, runner=runner)
    assert type(caught.value) is error
    assert str(caught.value).endswith(r"the \x1b[1msentence")


def test_a_code_that_is_fine_is_no_error_and_one_without_a_sentence_names_the_program() -> None:
    assert ask(["x"], package="p", timeout_s=1, ok=(0, 1), runner=FakeRunner(Answer(returncode=1))).returncode == 1
    with pytest.raises(ToolError, match="x ended with 2"):
        ask(["x"], package="p", timeout_s=1, runner=FakeRunner(Answer(returncode=2)))


def test_a_program_that_is_not_there_is_of_a_package_and_one_that_is_late_is_said_as_it_is() -> None:
    absent = FakeRunner(lambda argv: ToolError(argv, "was not found"))
    with pytest.raises(EnvironmentFault, match="x is not on this node; install the package p"):
        ask(["x"], package="p", timeout_s=1, runner=absent)
    late = FakeRunner(lambda argv: ToolError(argv, "did not end within 1 s and was killed"))
    with pytest.raises(ToolError, match="did not end within 1 s"):
        ask(["x"], package="p", timeout_s=1, runner=late)
