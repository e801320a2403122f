"""A test that asserts nothing cannot fail for the reason that its name gives."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
#: Calls that fail a test as an assert does; so does a program run with check=True.
FAILING = frozenset({"raises", "warns", "fail"})


def names_called(function: ast.FunctionDef) -> set[str]:
    called = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {f.attr if isinstance(f, ast.Attribute) else f.id for f in called if isinstance(f, ast.Attribute | ast.Name)}


def asserts(function: ast.FunctionDef) -> bool:
    words = (k for node in ast.walk(function) if isinstance(node, ast.Call) for k in node.keywords)
    checked = any(k.arg == "check" and isinstance(k.value, ast.Constant) and k.value.value is True for k in words)
    plain = any(isinstance(node, ast.Assert) for node in ast.walk(function))
    return plain or checked or bool(names_called(function) & FAILING)


def empty_tests(sources: dict[str, str]) -> list[str]:
    """Tests that neither assert nor call a function of these sources that does."""
    functions = [
        (name, node)
        for name, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    ]
    helpful = {f.name for _, f in functions if not f.name.startswith("test_") and asserts(f)}
    return [
        f"{name}:{f.lineno} {f.name}"
        for name, f in functions
        if f.name.startswith("test_") and not asserts(f) and not names_called(f) & helpful
    ]


def test_every_test_asserts_something() -> None:
    sources = {str(path.relative_to(TESTS)): path.read_text() for path in TESTS.rglob("*.py")}
    assert empty_tests(sources) == []


def test_one_that_asserts_nothing_is_found() -> None:
    source = """
def check(x):
    assert x
def test_good():
    check(1)
def test_good_too():
    subprocess.run(["x"], check=True)
def test_bad():
    subprocess.run(["x"], check=False)
"""
    assert empty_tests({"a.py": source}) == ["a.py:8 test_bad"]
