from __future__ import annotations

import pytest
from snf_lab.state import TREE
from snf_lab.torture import OTHERS, parse_figures, plan_words

from synnefo_light.errors import PeerError


def test_the_figures_are_the_last_line() -> None:
    line = '{"attacks_passed": 23, "attacks_total": 24, "fuzz_images": 24, "seconds": 9}'
    figures = parse_figures(f"passed one\nFAILED two\n{line}\n")
    assert (figures.passed, figures.total, figures.line) == (23, 24, line)


@pytest.mark.parametrize("output", ["", "Traceback\n", '{"attacks_passed": 1}\n', "[]\n", "1\n"])
def test_an_end_without_figures_is_an_error(output: str) -> None:
    with pytest.raises(PeerError, match="without their figures"):
        parse_figures(output)


def test_what_is_no_attack_has_a_module_of_its_own_which_is_there() -> None:
    assert plan_words("links") == ["-m", "tests.attack.torture", "links"]
    for name, module in OTHERS.items():
        assert plan_words(name) == ["-m", module]
        assert (TREE / f"{module.replace('.', '/')}.py").is_file()
