"""The rules of the house, read from its source: imports run downward; functions are short, none named as its module.

Each module has a test module.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = (
    ("cli",),
    ("audit", "benchmark", "demo"),
    ("repair",),
    ("training",),
    ("report",),
    ("evaluation",),
    ("data", "metrics"),
    ("models", "perturb"),
    ("convert",),
    ("nn",),
    ("functional",),
    ("ops",),
    ("filters", "records"),
    ("files", "optional", "progress", "runtime"),
    ("errors",),
)
"""From the top down. A module imports from its own room and from the rooms of the rows below."""

MOST_LINES = 60
MOST_PARAMETERS = 8
# The parameters of these are their contract with users.
PUBLISHED = {
    "antialias",
    "create_model",
    "evaluate",
    "max_blur_pool2d",
    "measure_consistency",
    "measure_stability",
    "repair",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A module of the package: its lines, and its syntax tree without what stands under `if TYPE_CHECKING`."""

    name: str
    lines: list[str]
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[1]

    def functions(self) -> Iterator[Function]:
        """Functions and methods, without Triton's kernels."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function) and not any("jit" in ast.unparse(each) for each in node.decorator_list):
                yield node


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST:
        is_guard = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return ast.copy_location(ast.Pass(), node) if is_guard else self.generic_visit(node)


@cache
def modules() -> dict[str, Module]:
    """The modules of the package by name, without `dealias` itself, which imports the others by name when asked."""
    by_name = {}
    for path in sorted((ROOT / "src" / "dealias").rglob("*.py")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        if name not in ("dealias", "dealias.__main__"):
            by_name[name] = Module(name, text.splitlines(), _WithoutTypeChecking().visit(ast.parse(text)))
    return by_name


def imported(module: Module) -> set[str]:
    """The modules of the package that `module` imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in modules() else str(node.module) for name in whole}
    return (names & modules().keys()) - {module.name}


def test_imports_run_downward() -> None:
    rows = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    upward = {
        (module.name, name)
        for module in modules().values()
        for name in imported(module)
        if modules()[name].room != module.room and rows[modules()[name].room] <= rows[module.room]
    }
    assert upward == set()


def test_contributing_gives_the_order_of_the_rooms() -> None:
    order = " -> ".join(", ".join(rooms) for rooms in ROOMS)
    assert order in " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())


def test_no_modules_import_one_another_in_a_circle() -> None:
    # prepare() raises CycleError with the circle
    TopologicalSorter({module.name: imported(module) for module in modules().values()}).prepare()


def test_the_package_alone_imports_the_standard_library_alone() -> None:
    code = "import sys; before = {*sys.modules}; import dealias; print(*{*sys.modules} - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in run.stdout.split()} - sys.stdlib_module_names == {"dealias"}


def test_functions_are_short() -> None:
    long = {}
    for module in modules().values():
        for function in module.functions():
            first = function.body[0]
            text = range(first.lineno - 1, first.end_lineno or 0) if ast.get_docstring(function) is not None else ()
            body = range(function.lineno - 1, function.end_lineno or 0)
            count = sum(bool(module.lines[number].strip()) for number in body if number not in text)
            if count > MOST_LINES:
                long[f"{module.name}.{function.name}"] = count
    assert long == {}


def test_functions_have_few_parameters() -> None:
    many = {}
    for module in modules().values():
        for function in module.functions():
            given = function.args
            names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names += [each.arg for each in (given.vararg, given.kwarg) if each is not None]
            count = len([name for name in names if name not in ("self", "cls")])
            # the parameters of a command are its options
            is_command = any("app.command" in ast.unparse(each) for each in function.decorator_list)
            if count > MOST_PARAMETERS and function.name not in PUBLISHED and not is_command:
                many[f"{module.name}.{function.name}"] = count
    assert many == {}


def test_nothing_bears_the_name_of_its_module() -> None:
    named = {
        f"{module.name}.{node.name}": node.lineno
        for module in modules().values()
        for node in module.tree.body
        if isinstance(node, Function | ast.ClassDef) and node.name == module.name.rpartition(".")[2]
    }
    assert named == {}


def test_every_module_has_its_test_module() -> None:
    missing = []
    for path in sorted((ROOT / "src" / "dealias").rglob("*.py")):
        place = path.relative_to(ROOT / "src" / "dealias")
        # tests/ops/test_cuda.py tests the kernels as a whole
        if path.stem in ("__init__", "__main__") or place.parts[:2] == ("ops", "cuda"):
            continue
        mirror = place.with_name(f"test_{place.stem.removeprefix('_')}.py")
        if not (ROOT / "tests" / mirror).exists():
            missing.append(str(mirror))
    assert missing == []
