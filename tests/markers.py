"""What a test module needs (torch, a browser, processes), read from its imports before it is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "hsemotion_space"
TORCH = {"torch", "torchvision", "timm", "facenet_pytorch"}
BROWSER = {"playwright", "browser_makers"}
PROCESS = {"subprocess", "multiprocessing", "page_makers", "fake_hub", "hsemotion_space.jobs.JobRunner"}


def markers_of(path: Path) -> set[str]:
    """Return the markers of a test module, or of a folder, by what it and the ``conftest.py`` around it
    import."""
    around = [folder / "conftest.py" for folder in (path, *path.parents) if TESTS in folder.parents]
    files = [file for file in (path, *around) if file.is_file() and file.suffix == ".py"]
    modules = {module for file in files for module in reached_from(file)}
    imported = {name for module in modules for name in imports_of(module)}
    by_tests = {
        name for module in modules if not module.is_relative_to(PACKAGE) for name in imports_of(module)
    }
    found = {"torch": imported & TORCH, "browser": by_tests & BROWSER, "process": by_tests & PROCESS}
    return {marker for marker, names in found.items() if names}


def reached_from(file: Path) -> set[Path]:
    """Return the modules of the tests and of the package that a file imports, directly or not, and itself."""
    reached, waiting = set(), {file}
    while waiting:
        reached.add(module := waiting.pop())
        waiting |= {found for name in imports_of(module) if (found := find_module(name))} - reached
    return reached


@cache
def imports_of(file: Path) -> frozenset[str]:
    """Return the names of the modules that a file imports, with the packages around them.

    Imports inside functions count in the tests, whose functions run, and not in the package, whose may not.
    """
    names = set()
    for module in imports_in(ast.parse(file.read_bytes()), functions=not file.is_relative_to(PACKAGE)):
        parts = module.split(".")
        names |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return frozenset(names)


def imports_in(node: ast.AST, *, functions: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not (
            isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not functions
        ) and not is_for_types(child):
            yield from imports_in(child, functions=functions)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def find_module(name: str) -> Path | None:
    """Return the file of a module of the tests or of the package."""
    for root in (TESTS, PACKAGE.parent):
        path = root.joinpath(*name.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None
