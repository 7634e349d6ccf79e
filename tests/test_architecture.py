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

LAYERS = {
    1: "tasks messages",
    2: "types settings",
    3: "environment hub images media engine metrics reliability doubt",
    4: "detection tracking alignment backbones drafts heads temporal compare quality figures export feedback",
    5: "annotation readout pipeline explain",
    6: "jobs learn",
    7: "ui cli",
    8: "app __main__",
}
LAYER = {unit: layer for layer, units in LAYERS.items() for unit in units.split()}
NEIGHBORS = {("media", "images"), ("pipeline", "readout"), ("cli", "ui")}  # halves of one thing; the command that serves the page
HOMES = {
    "av": "media",
    "facenet_pytorch": "detection",
    "filelock": "hub feedback",
    "gradio": "ui",
    "httpx2": "hub feedback",
    "huggingface_hub": "hub feedback",
    "krippendorff": "feedback",
    "multiprocessing": "jobs",
    "openvino": "engine",
    "plotly": "figures",
    "pyarrow": "export feedback learn",
    "safetensors": "hub pipeline learn",
    "scipy": "tracking learn",
    "sqlalchemy": "feedback",
    "starlette": "ui",
    "timm": "backbones",
    "tomlkit": "hub learn",
    "torch": "engine detection backbones learn hub",
    "tqdm": "hub learn cli",
    "uvicorn": "ui",
}
EVERYWHERE = {"numpy", "PIL"}
WITH_TORCH = {"engine", "detection", "backbones", "pipeline", "learn"}
PAGE = {
    "tasks",
    "messages",
    "types",
    "settings",
    "environment",
    "hub",
    "metrics",
    "images",
    "heads",
    "temporal",
    "quality",
    "reliability",
    "doubt",
    "figures",
    "export",
    "feedback",
    "annotation",
    "readout",
    "explain",
    "jobs",
    "ui",
}
IN_THE_WORKER = {
    ("jobs", "warm_pipeline"),
    ("jobs", "_explain"),
    ("jobs", "TYPE_CHECKING"),
    ("explain", "explain"),
}  # functions that no page calls
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 6


class Import(NamedTuple):
    where: str
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
            names = [f"{PACKAGE}.{alias.name}" for alias in child.names] if child.module == PACKAGE else [child.module or ""]
            yield from ((function, name) for name in names)
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not function else function
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            inner = "TYPE_CHECKING"  # which happens nowhere
        yield from imports_in(child, inner)


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(
        Import(str(file.relative_to(ROOT)), unit_of(module_of(file)), function, target)
        for file in files()
        for function, target in imports_in(tree(file))
    )


def inner_imports() -> list[tuple[Import, str]]:
    """Return imports from one unit of the package to another."""
    pairs = [(item, unit_of(item.target)) for item in all_imports() if item.target.split(".")[0] == PACKAGE]
    return [(item, target) for item, target in pairs if target not in (item.unit, "__version__")]


def in_the_worker(item: Import) -> bool:
    """Tell whether an import happens in the worker process and nowhere else."""
    return (item.unit, item.function) in IN_THE_WORKER


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


def test_the_top_of_the_package_imports_nothing() -> None:
    assert not [item for item in all_imports() if item.unit == PACKAGE]


def test_the_page_reaches_no_torch_but_in_the_worker() -> None:
    wrong = [
        f"{item.where}: {item.unit} imports {target}"
        for item, target in inner_imports()
        if item.unit in PAGE and target in WITH_TORCH and not in_the_worker(item)
    ]
    assert not wrong


def test_jobs_knows_the_pipeline_only_in_its_worker() -> None:
    outside = {target for item, target in inner_imports() if item.unit == "jobs" and not in_the_worker(item)}
    inside = {target for item, target in inner_imports() if item.unit == "jobs" and in_the_worker(item)}
    assert outside <= {"messages", "settings", "environment", "types", "tasks", "images", "explain", "hub"}
    assert inside == {"alignment", "media", "pipeline"}


def test_the_page_says_of_each_job_which_client_it_is_of() -> None:
    asked = [
        (f"{file.relative_to(ROOT)}:{node.lineno}", {keyword.arg for keyword in node.keywords})
        for file in files()
        if unit_of(module_of(file)) == "ui"
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and re.fullmatch(r"(?:.*[.])?runner[.](submit|explain|look)", ast.unparse(node.func))
    ]
    assert len(asked) >= 5
    assert not [place for place, keywords in asked if "client" not in keywords]


def test_every_library_stays_in_its_home() -> None:
    wrong = []
    for item in all_imports():
        library = item.target.split(".")[0]
        if library == PACKAGE or library in EVERYWHERE or (library in sys.stdlib_module_names and library not in HOMES):
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
        and any(isinstance(part, ast.Attribute) and part.attr == "name" for part in (node.left, *node.comparators))
        and any(isinstance(part, ast.Constant) and part.value in names for part in (node.left, *node.comparators))
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
    places = {(item.where, item.function) for item in all_imports() if item.unit == "hub" and item.target.split(".")[0] == "torch"}
    assert places == {(f"{PACKAGE}/hub/convert.py", function) for function in ("_load", "_arrays")}


def test_the_page_process_imports_no_torch() -> None:
    modules = [
        "jobs",
        "readout",
        "hub.registry",
        "hub.weights",
        "hub.imports",
        *(["ui.app"] if (ROOT / PACKAGE / "ui/app.py").exists() else []),
    ]
    code = "import sys, importlib\n" + "".join(
        f"importlib.import_module('{PACKAGE}.{name}')\nassert 'torch' not in sys.modules, '{name} imports torch'\n" for name in modules
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_no_file_names_a_place_of_one_machine() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
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
