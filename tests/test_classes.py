"""How large classes may become: one that offers more than forty things is several."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "napari_dinoaugseg"
MOST = 40


def classes() -> dict[str, ast.ClassDef]:
    """Every class of the package by name."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py"))
    return {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def members(name: str, known: dict[str, ast.ClassDef]) -> set[str]:
    """The public names of a class and of those it inherits from in this package: methods and attributes."""
    node = known[name]
    found = {name for statement in node.body for name in defined(statement)}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in known:
            found |= members(base.id, known)
    return {name for name in found if not name.startswith("_")}


def defined(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement in the body of a class gives to its objects."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
        for node in ast.walk(statement):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            ):
                yield node.attr
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


def test_no_class_has_more_than_forty_public_members():
    known = classes()
    sizes = {name: len(members(name, known)) for name in known}
    assert "Controller" in sizes
    assert {name: size for name, size in sizes.items() if size > MOST} == {}


def test_members_are_counted_with_those_that_are_inherited():
    source = "class A:\n    x = 1\n    def f(self): self.y = self._z = 2\nclass B(A):\n    w: int\n    def f(self): ..."
    known = {node.name: node for node in ast.parse(source).body}
    assert members("B", known) == {"x", "f", "y", "w"}
