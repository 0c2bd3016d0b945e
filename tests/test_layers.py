"""Imports go one way: every module may read its own layer and those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import srr_onnx

PACKAGE = Path(srr_onnx.__file__).parent
# From the bottom up; the members of one row do not know each other.
LAYERS = (
    ("errors", "registry", "wording"),
    ("graph",),
    ("analysis", "targets", "data"),
    ("calibration",),
    ("scoring",),
    ("planning",),
    ("rewriting",),
    ("validation",),
    ("finetuning",),
    ("pipeline",),
    ("lossless",),
    ("optimizing",),
    ("cli",),
)
LEVEL = {part: level for level, row in enumerate(LAYERS) for part in row}
# The public names of the package are gathered in its __init__, which nobody inside imports; assets hold no code.
APART = {"__init__", "__main__"}
HOMES = {
    "onnx_graphsurgeon": {"graph"},
    "onnxruntime": {"targets"},
    "platformdirs": {"targets"},
    "click": {"cli"},
    "rich": {"cli"},
    "torch": {"finetuning"},
    "lightning": {"finetuning"},
    "PIL": {"data"},
    "yaml": {"data"},
    "pydantic": {"data"},
    "jinja2": {"validation"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; those under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer() -> None:
    assert {part_of(module) for module in MODULES} - APART <= set(LEVEL)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(module: Path) -> None:
    part = part_of(module)
    if part in APART:
        return
    for name in imports(module):
        words = name.split(".")
        if words[0] != "srr_onnx":
            continue
        if words[1:] in ([], ["__version__"]):
            continue  # the version is all that is read off the package itself
        read = words[1]
        assert read in LEVEL, f"{name} is no part of the package"
        is_below = LEVEL[read] < LEVEL[part] or (LEVEL[read] == LEVEL[part] and read == part)
        # errors and registry are one bottom row, and a registry raises errors
        assert is_below or LEVEL[read] == LEVEL[part] == 0, f"{part} imports {name}, which is not below it"


@pytest.mark.parametrize("library", sorted(HOMES))
def test_libraries_stay_in_their_homes(library: str) -> None:
    users = {part_of(module) for module in MODULES for name in imports(module) if name.split(".")[0] == library}
    assert users <= HOMES[library]


def test_only_the_command_line_prints() -> None:
    for module in MODULES:
        calls = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]
        names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
        assert part_of(module) == "cli" or "print" not in names, f"{module} prints"
