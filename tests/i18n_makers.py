"""Find the English texts of the page: in the calls that translate them, in what these calls reach, and in the
scripts of the viewer."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

from hsemotion_space.feedback import consent
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.messages import Message, MessageError
from hsemotion_space.tasks import AFF_WILD2_EXPRESSION, TASKS
from hsemotion_space.types import PROVENANCE_LABELS
from hsemotion_space.ui import feedback
from hsemotion_space.ui.viewer import component

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hsemotion_space"
VIEWER = PACKAGE / "ui" / "viewer"
PLACE = re.compile(r"{(?:\w+)(?::[^}]*)?}")
TEXT_FIELDS = {"title", "name", "label", "short", "description", "text", "metric", "citation", "none"}
"""Fields of tasks, labels and steps of consent."""
LOCALS = {"label", "words", "numbers", "rest"}
"""Names of variables that hold such texts, verdicts, or parts of a page."""


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def calls() -> Iterator[tuple[Path, ast.expr]]:
    """Yield where a text is translated, and its expression."""
    for file in sorted((PACKAGE / "ui").rglob("*.py")):
        for node in ast.walk(tree(file)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("gettext_lazy", "gettext")
                and node.args
            ):
                yield file, node.args[0]


def texts_of(text: ast.expr, module: ModuleType) -> list[str]:
    """Return what the first argument of such a call can be.

    Raises:
        ValueError: if that cannot be told.
    """
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return [text.value]
    if isinstance(text, ast.IfExp):
        return [*texts_of(text.body, module), *texts_of(text.orelse, module)]
    name = text.value if isinstance(text, ast.Subscript) else text
    if isinstance(name, ast.Name) and hasattr(module, name.id):
        held = getattr(module, name.id)
        return [held] if isinstance(held, str) else list(held.values())
    if (isinstance(text, ast.Attribute) and text.attr in TEXT_FIELDS) or (
        isinstance(text, ast.Name) and text.id in LOCALS
    ):
        return []
    raise ValueError(ast.unparse(text))


def said() -> set[str]:
    """Return the texts of all calls in the page."""
    found: set[str] = set()
    for file, text in calls():
        module = importlib.import_module(
            ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        )
        found.update(texts_of(text, module))
    return {text for text in found if re.search("[A-Za-z]{2}", PLACE.sub("", text))}


def declared() -> set[str]:
    """Return the texts of tasks, verdicts, provenance, consent and checkpoints."""
    found = {
        *PROVENANCE_LABELS.values(),
        *feedback.VERDICT_WORDS.values(),
        *(words for words, _ in feedback.VERDICTS),
    }
    for task in (*TASKS, AFF_WILD2_EXPRESSION):
        found |= {task.title, task.metric, task.citation, task.none}
        found |= {text for label in task.labels for text in (label.name, label.short, label.description)}
    for checkpoint in list_checkpoints((PACKAGE.parent / "checkpoints",)):
        found |= {checkpoint.summary, checkpoint.license, *(head.note for head in checkpoint.heads)}
    return found - {""} | set(agreed())


def agreed() -> list[str]:
    """Return everything that contributors are asked to agree to."""
    steps = [item for item in vars(consent).values() if isinstance(item, consent.Step)]
    statements = [
        text for name, text in vars(consent).items() if name.startswith("STATEMENT") and isinstance(text, str)
    ]
    return [*(text for step in steps for text in (step.title, step.text)), *statements]


class _Page(HTMLParser):
    """Collects what is read of a page: texts and labels."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts |= {value or "" for name, value in attrs if name in ("aria-label", "alt")}

    def handle_data(self, data: str) -> None:
        self.texts |= {data.strip()} if re.search("[a-z]{2}", data) else set()


def in_viewer() -> set[str]:
    """Return the texts of the viewer, of its page and of its scripts."""
    scripts = "\n".join((VIEWER / name).read_text("utf-8") for name in component.SCRIPTS)
    found = _Page((VIEWER / "viewer.html").read_text("utf-8")).texts
    found |= {
        text
        for call in re.findall(r"\bgettext\(((?:[^()']|'[^']*')*)", scripts)
        for text in re.findall(r"'([^']*)'", call)
    }
    found |= set(re.findall(r"\bmakeButton\('([^']*)'", scripts))
    [quadrants] = re.findall(r"QUADRANTS = (.*);", scripts)
    return found | set(re.findall(r"'(\w+)'", quadrants))


def in_trace() -> set[str]:
    """Return the texts of the component for continuous ratings, of its page and of its script."""
    folder = PACKAGE / "ui" / "annotate"
    scripts = "".join((folder / name).read_text("utf-8") for name in ("exchange.js", "trace.js"))
    said = re.findall(r"\bgettext\('([^']*)'", scripts)
    return _Page((folder / "trace.html").read_text("utf-8")).texts | set(said)


def in_source() -> set[str]:
    """Return the texts of the component that files come from."""
    return _Page((PACKAGE / "ui" / "source" / "source.html").read_text("utf-8")).texts


@cache
def written() -> tuple[str, ...]:
    """Return all texts in the package and the manifests; one with values is there in its pieces."""
    found = [
        file.read_text("utf-8")
        for suffix in ("js", "html", "md")
        for file in (PACKAGE / "ui").rglob(f"*.{suffix}")
    ]
    found += [file.read_text("utf-8") for file in (ROOT / "checkpoints").glob("*/manifest.toml")]
    for file in PACKAGE.rglob("*.py"):
        found += [
            node.value
            for node in ast.walk(tree(file))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return tuple(found)


def module_of(file: Path) -> ModuleType:
    return importlib.import_module(
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    )


def messages_in(*names: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the templates of all messages and errors that some files of the package make for people, and the
    names of their values."""
    for file in sorted(file for name in names for file in PACKAGE.glob(name)):
        module = module_of(file)
        for scope in [
            *(node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef)),
            tree(file),
        ]:
            for node in ast.walk(scope):
                if isinstance(node, ast.Call) and node.args and _makes_a_message(node.func, module):
                    values = (
                        {keyword.arg or "**" for keyword in node.keywords}
                        if isinstance(node.args[0], ast.Constant)
                        else {"**"}
                    )
                    texts = _strings(node.args[0], scope, module)
                    yield from (
                        (text, values) for text in texts if re.search("[A-Za-z]{2} |[A-Za-z] [A-Za-z]", text)
                    )


def _makes_a_message(function: ast.expr, module: ModuleType) -> bool:
    made = getattr(module, ast.unparse(function), None)
    return isinstance(made, type) and issubclass(made, Message | MessageError)


def _strings(text: ast.expr, scope: ast.AST, module: ModuleType) -> Iterator[str]:
    """Yield the strings that an expression can be; a name is looked up in its function, then in its module."""
    left, seen = [text], set()
    while left:
        item = left.pop()
        if isinstance(item, ast.Constant) and isinstance(item.value, str):
            yield item.value
        elif isinstance(item, ast.IfExp):
            left += [item.body, item.orelse]
        elif isinstance(item, ast.Tuple | ast.List):
            left += item.elts
        elif isinstance(item, ast.Call) and ast.unparse(item.func).endswith(".get"):
            left += [item.func, *item.args[1:]]
        elif isinstance(item, ast.Subscript | ast.Attribute):
            left.append(item.value)
        elif isinstance(item, ast.Call) and ast.unparse(item.func) == "next":
            left += [generator.iter for generator in getattr(item.args[0], "generators", [])] + item.args[1:]
        elif isinstance(item, ast.Name) and item.id not in seen:
            seen.add(item.id)
            values = list(_values_of(item.id, scope))
            left += values
            yield from () if values else _strings_in(getattr(module, item.id, None))


def _values_of(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    """Yield what is assigned to a name, or looped over by it, in a function."""
    for node in ast.walk(scope):
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.For | ast.comprehension)
            else []
        )
        if any(
            isinstance(item, ast.Name) and item.id == name for target in targets for item in ast.walk(target)
        ):
            yield node.value if isinstance(node, ast.Assign) else node.iter


def _strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        items = value.values() if isinstance(value, Mapping) else value
        yield from (string for item in items for string in _strings_in(item))


def is_written(text: str) -> bool:
    """Return whether a text, but for its values, is written in the package."""
    fragments = [fragment.strip(" ,.;:()“”…%") for fragment in PLACE.split(text)]
    return all(any(fragment in source for source in written()) for fragment in fragments)
