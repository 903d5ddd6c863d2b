"""Every public name says what it is: modules, classes, functions, and methods that no base or protocol speaks for."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "celebvision"
FILES = sorted(ROOT.rglob("*.py"))
LONGEST = 400  # lines: more is more than one thing
TORCHS = {"forward"}  # what it is for is the module's own docstring


def documented_methods() -> set[str]:
    """Names of methods that some class of the house documents: those that do the same need not say it again."""
    return {
        method.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and ast.get_docstring(method)
    }


SAID = documented_methods() | TORCHS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    silent = [] if ast.get_docstring(tree) or not tree.body else ["the module"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            silent += [] if ast.get_docstring(node) else [node.name]
            for method in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    said = ast.get_docstring(method) or method.name in SAID
                    silent += [] if said else [f"{node.name}.{method.name}"]
    assert silent == []


@pytest.mark.parametrize("folder", ["celebvision", "cluster", "jobs", "tests"])
def test_no_file_is_longer_than_can_be_read_at_once(folder: str) -> None:
    lengths = {path: path.read_text().count("\n") for path in (ROOT.parent / folder).rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > LONGEST} == {}
