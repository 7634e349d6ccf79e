"""Rules of structure: layers of imports, one home per heavy library, sizes of files and functions."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "hsemotion_space"

LAYERS = (  # from the bottom up; a room imports only from rows above its own here
    "tasks messages",
    "edits",
    "types settings",
    "environment hub logs media metrics",
    "traces",
    "vision figures feedback",
    "inference",
    "analysis",
    "batch jobs training",
    "operations",
    "ui cli",
    "app __main__",
)
LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms.split()}
NEIGHBORS = {("cli", "ui")}  # the command that serves the page
STRANGERS = {("training", "feedback")}  # feedback reaches training through its published files alone
HOMES = {
    "av": "media",
    "facenet_pytorch": "vision",
    "fsspec": "batch",
    "filelock": "hub feedback",
    "gradio": "ui",
    "httpx2": "hub feedback",
    "huggingface_hub": "hub feedback",
    "krippendorff": "feedback",
    "multiprocessing": "jobs",
    "openvino": "vision",
    "pillow_heif": "media",
    "plotly": "figures",
    "prometheus_client": "operations",
    "pyarrow": "analysis batch feedback training",
    "ray": "batch",
    "safetensors": "hub inference training",
    "scipy": "vision training",
    "spaces": "jobs",
    "sqlalchemy": "feedback",
    "starlette": "ui",
    "timm": "vision",
    "tomlkit": "hub training",
    "torch": "vision training hub",
    "tqdm": "hub training cli",
    "uvicorn": "ui",
}
EVERYWHERE = {"numpy", "PIL"}
PAGE_ROOMS = {
    "hub",
    "media",
    "analysis",
    "figures",
    "feedback",
    "inference",
    "jobs",
    "logs",
    "operations",
    "ui",
}
IN_THE_WORKER = {  # functions that no page calls
    ("inference/network.py", "_build"),
    ("hub/convert.py", "_load"),
    ("hub/convert.py", "_arrays"),
    ("jobs/gpu.py", "__init__"),  # on ZeroGPU alone, whose library imports torch into the page
    ("jobs/gpu.py", "_run_networks"),
}
FILE_LINES, FUNCTION_LINES, PARAMETERS = 430, 60, 6


class Import(NamedTuple):
    where: str
    module: str
    unit: str
    function: str  # the outermost function around the import, empty at module level
    target: str


def unit_of(module: str) -> str:
    """Return the unit of a module of the package: its first name below it."""
    return module.split(".")[1] if module.startswith(PACKAGE + ".") else module


def files() -> list[Path]:
    return [*sorted((ROOT / PACKAGE).rglob("*.py")), *ROOT.glob("app.py")]


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def imports_in(node: ast.AST, function: str = "") -> Iterator[tuple[str, str]]:
    """Yield (outermost function, dotted target); ``from package import unit`` gives the unit."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((function, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative import"
            yield from ((function, f"{child.module}.{alias.name}") for alias in child.names)
        inner = (
            child.name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not function
            else function
        )
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            inner = "TYPE_CHECKING"  # which happens nowhere
        yield from imports_in(child, inner)


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(
        Import(str(file.relative_to(ROOT)), module_of(file), unit_of(module_of(file)), function, target)
        for file in files()
        for function, target in imports_in(tree(file))
    )


def inner_imports() -> list[tuple[Import, str]]:
    """Return imports from one unit of the package to another."""
    pairs = [(item, unit_of(item.target)) for item in all_imports() if item.target.split(".")[0] == PACKAGE]
    return [(item, target) for item, target in pairs if target not in (item.unit, "__version__")]


def in_the_worker(item: Import) -> bool:
    """Tell whether an import happens in the worker process and nowhere else."""
    file = item.where.removeprefix(f"{PACKAGE}/")
    return item.function == "TYPE_CHECKING" or (file, item.function) in IN_THE_WORKER


@cache
def modules_with_torch() -> frozenset[str]:
    """Return the modules of the package that import torch when they are imported, directly or through others."""
    names = {module_of(file) for file in files()}
    needs = {item.module: set() for item in all_imports()}
    for item in all_imports():
        if not item.function:
            needs[item.module] |= {item.target, item.target.rsplit(".", 1)[0]} & (names | {"torch"})
    found = {"torch"}
    while more := {module for module, targets in needs.items() if targets & found} - found:
        found |= more
    return frozenset(found)


def test_every_unit_has_a_layer() -> None:
    units = {unit_of(module_of(file)) for file in files()} - {PACKAGE}
    assert units <= LAYER.keys()


def test_imports_go_strictly_down() -> None:
    wrong = [
        f"{item.where}: {item.unit} ({LAYER[item.unit]}) imports {target} ({LAYER.get(target)})"
        for item, target in inner_imports()
        if (item.unit, target) not in NEIGHBORS and LAYER[item.unit] <= LAYER.get(target, 99)
    ]
    assert not wrong


def test_rooms_that_meet_in_files_do_not_import_each_other() -> None:
    assert not [
        f"{item.where} imports {item.target}"
        for item, target in inner_imports()
        if (item.unit, target) in STRANGERS
    ]


def test_the_top_of_the_package_imports_nothing() -> None:
    assert not [item for item in all_imports() if item.unit == PACKAGE]


def test_page_rooms_reach_torch_in_the_worker_alone() -> None:
    wrong = [
        f"{item.where}: {item.function or 'module'} imports {item.target}"
        for item in all_imports()
        if item.unit in PAGE_ROOMS and not in_the_worker(item)
        and {item.target, item.target.rsplit(".", 1)[0]} & modules_with_torch()
    ]  # fmt: skip
    assert not wrong


def test_the_page_says_of_each_job_which_client_it_is_of() -> None:
    asked = [
        (f"{file.relative_to(ROOT)}:{node.lineno}", {keyword.arg for keyword in node.keywords})
        for file in files()
        if unit_of(module_of(file)) == "ui"
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call)
        and re.fullmatch(r"(?:.*[.])?runner[.](submit|explain|analyze_frame)", ast.unparse(node.func))
    ]
    assert len(asked) >= 5
    assert not [place for place, keywords in asked if "client" not in keywords]


def test_every_library_stays_in_its_home() -> None:
    wrong = []
    for item in all_imports():
        library = item.target.split(".")[0]
        if (
            library == PACKAGE
            or library in EVERYWHERE
            or (library in sys.stdlib_module_names and library not in HOMES)
        ):
            continue
        if item.unit not in HOMES.get(library, "").split():
            wrong.append(f"{item.where}: {library} belongs to {HOMES.get(library, 'no unit')}")
    assert not wrong


def test_consumers_ask_for_kind_and_scope_never_for_the_name_of_a_task() -> None:
    names = {"expression", "valence_arousal", "action_units", "compound_expression", "mimicry_intensity"}
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in files()
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Compare)
        and any(
            isinstance(part, ast.Attribute) and part.attr == "name" for part in (node.left, *node.comparators)
        )
        and any(
            isinstance(part, ast.Constant) and part.value in names for part in (node.left, *node.comparators)
        )
    ]
    assert not wrong


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_sizes(file: Path) -> None:
    lines = len(file.read_text("utf-8").splitlines())
    assert lines <= FILE_LINES, f"{lines} lines"
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{node.name} has {length} lines"
            names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            assert count <= PARAMETERS, f"{node.name} has {count} parameters"


def test_hub_imports_torch_only_when_it_converts() -> None:
    places = {
        (item.where, item.function)
        for item in all_imports()
        if item.unit == "hub" and item.target.split(".")[0] == "torch"
    }
    assert places == {(f"{PACKAGE}/hub/convert.py", function) for function in ("_load", "_arrays")}


def test_the_page_process_imports_no_torch() -> None:
    modules = ["jobs", "inference.postprocess", "hub.registry", "hub.weights", "hub.imports", "ui.app"]
    code = "import sys, importlib\n" + "".join(
        f"importlib.import_module('{PACKAGE}.{name}')\nassert 'torch' not in sys.modules, '{name} imports"
        " torch'\n"
        for name in modules
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_no_file_names_a_place_of_one_machine() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    pattern = re.compile(rb"(?<![\w.:/~-])/(?:(?:home|root|Users|work|mnt|data)/[\w.-]+|tmp/[\w.-]+/[\w.-]+)")
    wrong = []
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        content = file.read_bytes() if file.is_file() else b""
        if b"\0" not in content[:8192] and (found := pattern.search(content)):
            wrong.append(f"{name}: {found.group().decode()}")
    assert not wrong


def test_constraints_satisfy_the_requirements() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines())
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text("utf-8").splitlines():
            if line and not line.startswith("#"):
                requirement = Requirement(line)
                assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), line


def test_the_lock_has_hashes_and_the_tested_versions() -> None:
    text = (ROOT / "deploy" / "requirements.txt").read_text("utf-8").replace("\\\n", " ")
    locked = {}
    for line in text.splitlines():
        pin, *hashes = line.split()
        name, version = pin.split("==")
        locked[canonicalize_name(name)] = version
        assert hashes and all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", item) for item in hashes), name
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines())
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    assert not {name for name in locked.keys() & tested.keys() if locked[name] != tested[name]}
    for file in ("requirements.txt", "deploy/requirements.in"):
        lines = [line for line in (ROOT / file).read_text("utf-8").splitlines() if line and line[0] != "#"]
        assert {canonicalize_name(Requirement(line).name) for line in lines} <= locked.keys()
