"""Find the English texts of the page: in the calls that translate them, in what these calls reach, and in the scripts of the viewer."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

from hsemotion_space.feedback import consent
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.tasks import AFF_WILD2_EXPRESSION, TASKS
from hsemotion_space.types import PROVENANCE_WORDS
from hsemotion_space.ui import feedback
from hsemotion_space.ui.viewer import component

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hsemotion_space"
VIEWER = PACKAGE / "ui" / "viewer"
PLACE = re.compile(r"{(?:\w+)(?::[^}]*)?}")
BREAK = r"(?<=[.!?]) "
TEXT_FIELDS = {"title", "name", "label", "short", "description", "text", "metric", "citation", "none"}
"""Fields of tasks, labels and steps of consent."""
SHOWN_ERRORS = {"MediaError", "JobError", "FeedbackError"}
LOCALS = {"label", "words", "numbers", "rest"}
"""Names of variables that hold such texts, verdicts, or parts of a page."""


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def calls() -> Iterator[tuple[Path, ast.expr]]:
    """Yield where a text is translated, and its expression."""
    for file in sorted((PACKAGE / "ui").rglob("*.py")):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("fixed", "say") and node.args:
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
    if (isinstance(text, ast.Attribute) and text.attr in TEXT_FIELDS) or (isinstance(text, ast.Name) and text.id in LOCALS):
        return []
    raise ValueError(ast.unparse(text))


def said() -> set[str]:
    """Return the texts of all calls in the page."""
    found: set[str] = set()
    for file, text in calls():
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        found.update(texts_of(text, module))
    return {text for text in found if re.search("[A-Za-z]{2}", PLACE.sub("", text))}


def declared() -> set[str]:
    """Return the texts of tasks, verdicts, provenance, consent and checkpoints."""
    found = {*PROVENANCE_WORDS.values(), *feedback.VERDICT_WORDS.values(), *(words for words, _ in feedback.VERDICTS)}
    for task in (*TASKS, AFF_WILD2_EXPRESSION):
        found |= {task.title, task.metric, task.citation, task.none}
        found |= {text for label in task.labels for text in (label.name, label.short, label.description)}
    for checkpoint in list_checkpoints((PACKAGE.parent / "checkpoints",)):
        found |= {checkpoint.summary, checkpoint.license, *(head.note for head in checkpoint.heads)}
    return found - {""} | set(agreed())


def agreed() -> list[str]:
    """Return everything that contributors are asked to agree to."""
    steps = [item for item in vars(consent).values() if isinstance(item, consent.Step)]
    statements = [text for name, text in vars(consent).items() if name.startswith("STATEMENT") and isinstance(text, str)]
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
    found |= {text for call in re.findall(r"\bsay\(((?:[^()']|'[^']*')*)", scripts) for text in re.findall(r"'([^']*)'", call)}
    found |= set(re.findall(r"\bmakeButton\('([^']*)'", scripts))
    [quadrants] = re.findall(r"QUADRANTS = (.*);", scripts)
    return found | set(re.findall(r"'(\w+)'", quadrants))


def in_source() -> set[str]:
    """Return the texts of the component that files come from."""
    return _Page((PACKAGE / "ui" / "source" / "source.html").read_text("utf-8")).texts


@cache
def written() -> tuple[str, ...]:
    """Return all texts in the package and the manifests; one with values is there in its pieces."""
    found = [file.read_text("utf-8") for suffix in ("js", "html", "md") for file in (PACKAGE / "ui").rglob(f"*.{suffix}")]
    found += [file.read_text("utf-8") for file in (ROOT / "checkpoints").glob("*/manifest.toml")]
    for file in PACKAGE.rglob("*.py"):
        found += [node.value for node in ast.walk(tree(file)) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return tuple(found)


@cache
def patterns() -> tuple[re.Pattern[str], ...]:
    """Return what each sentence with values, whatever they are, looks like that is put together somewhere in the package."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found += [sentence for sentence in re.split(BREAK, text) if len(re.findall("[A-Za-z]", sentence)) >= 8]
    return tuple(re.compile(".*".join(map(re.escape, sentence.split("\0"))), re.DOTALL) for sentence in found)


def templates_in(*names: str) -> Iterator[str]:
    """Yield the templates of all messages and errors that some files of the package make for people."""
    for file in sorted(file for name in names for file in PACKAGE.glob(name)):
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        functions = [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef)]
        for scope in (*functions, *(node for node in tree(file).body if isinstance(node, ast.Assign | ast.AnnAssign))):
            for node in ast.walk(scope):
                if (
                    isinstance(node, ast.Call)
                    and node.args
                    and re.fullmatch(r"(?:\w+)?Message|(?!ValueError|OSError)\w*Error|kind", ast.unparse(node.func))
                ):
                    yield from _templates(node.args[0], scope, module)


def _templates(text: ast.expr, scope: ast.AST, module: ModuleType) -> Iterator[str]:
    """Yield what the first argument of such a call can be: of a local name, every template in its function."""
    if isinstance(text, ast.Name) and hasattr(module, text.id):
        yield getattr(module, text.id)
    elif isinstance(text, ast.Name | ast.IfExp):
        constants = (node.value for node in ast.walk(scope) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        documented = ast.get_docstring(scope, clean=False) if isinstance(scope, ast.FunctionDef) else None
        yield from (text for text in constants if text != documented and re.search(r"[a-z] .*(?:[.]|{)", text))
    elif isinstance(text, ast.Constant):
        yield str(text.value)


def raised_in(*names: str) -> Iterator[str]:
    """Yield the messages of all errors that some files of the package raise for their readers, with a 7 for every value."""
    for file in sorted(file for name in names for file in PACKAGE.glob(name)):
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        for node in ast.walk(tree(file)):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in SHOWN_ERRORS and call.args:
                yield message(call.args[0], module)


def message(text: ast.expr, module: ModuleType) -> str:
    """Return a message, or the name of the constant that holds it."""
    if isinstance(text, ast.JoinedStr):
        return "".join(message(part, module) for part in text.values)
    if isinstance(text, ast.FormattedValue):
        held = getattr(module, text.value.id, "7") if isinstance(text.value, ast.Name) else "7"
        return held if isinstance(held, str) else "7"
    return str(text.value) if isinstance(text, ast.Constant) else str(getattr(module, text.id)) if isinstance(text, ast.Name) else "7"


def is_written(text: str) -> bool:
    """Return whether a text, but for its values, is written in the package: piece by piece, or each sentence as one with values."""
    fragments = [fragment.strip(" ,.;:()“”…%") for fragment in PLACE.split(text)]
    if all(any(fragment in source for source in written()) for fragment in fragments):
        return True
    return all(any(pattern.fullmatch(sentence) for pattern in patterns()) for sentence in re.split(BREAK, text))
