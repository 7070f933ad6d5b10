"""Nothing but a dialect's or a mode's own plugin knows its name: whoever asks for it by name would have to be changed
for every new one.

The names are the registry's. What counts is code that does something else for one name than for others: comparisons,
``match`` cases, look-ups by a name, dictionaries keyed by names. A name that is only handed on, such as the default of a
setting or the mode that a dialect asks for, decides nothing.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from servery_sdk import plugins

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for part in ("libs", "services", "cli", "plugins") for path in ROOT.glob(f"{part}/**/src/**/*.py")
)
LOOK_UPS = {"get", "pop", "setdefault", "startswith", "endswith"}
COLLECTIONS = {"frozenset", "set", "tuple", "list"}

# Other things than modes, which share a word with one.
NAMESAKES = {("servery_sdk.model.catalog", "Capability"): "what a cluster offers, whichever mode makes use of it"}


@dataclass(frozen=True, slots=True)
class Module:
    """Source, and the names that it may use since they are its own plugin's."""

    name: str
    tree: ast.Module
    own: frozenset[str] = frozenset()
    is_dialect: bool = False


@dataclass(slots=True)
class Constants:
    """What names stand for, in all modules: ``(module, NAME)`` and ``(module, Class.MEMBER)`` to the names in its value."""

    known: frozenset[str]
    values: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    imports: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def learn(self, module: Module) -> None:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    self.imports[module.name, alias.asname or alias.name] = (node.module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports[module.name, alias.asname or alias.name] = (alias.name, "")
        self._learn_body(module.name, module.tree.body, "")

    def _learn_body(self, module: str, body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and (module, node.name) not in NAMESAKES:
                self._learn_body(module, node.body, f"{node.name}.")
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if value is None or not (said := self.literal(value)):
                continue
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    self.values[module, prefix + target.id] = said

    def literal(self, node: ast.expr) -> frozenset[str]:
        """Return the registered names that a literal is or holds."""
        if isinstance(node, ast.Constant):
            return self.known & {node.value} if isinstance(node.value, str) else frozenset()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in COLLECTIONS:
            return frozenset().union(*map(self.literal, node.args))
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return frozenset().union(*map(self.literal, node.elts))
        return frozenset()

    def named(self, node: ast.expr, module: str) -> frozenset[str]:
        """Return the registered names that an expression stands for: a literal, a constant, a member of an enum."""
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return frozenset().union(*(self.named(inner, module) for inner in node.elts))
        path: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            path.insert(0, inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            return self.literal(node)
        path.insert(0, inner.id)
        if path[-1] in {"value", "name"}:
            path.pop()
        return self._at(module, ".".join(path))

    def _at(self, module: str, name: str) -> frozenset[str]:
        head, _, rest = name.partition(".")
        if (module, name) in self.values or (module, head) not in self.imports:
            return self.values.get((module, name), frozenset())
        where, what = self.imports[module, head]
        # ``from package import module`` and ``from module import NAME`` look alike.
        return self._at(where, f"{what}.{rest}".strip(".")) or (
            self._at(f"{where}.{what}".strip("."), rest) if rest else frozenset()
        )


def branches(module: Module, constants: Constants) -> Iterator[str]:
    """Yield every place that depends on a name that is not the module's own."""
    for node in ast.walk(module.tree):
        for expression in _deciding(node, module):
            for name in sorted(constants.named(expression, module.name) - module.own):
                yield f"{module.name}:{expression.lineno}: {name!r} in {ast.unparse(node).splitlines()[0]}"


def _deciding(node: ast.AST, module: Module) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        yield from (node.left, *node.comparators)
    elif isinstance(node, ast.MatchValue):
        yield node.value
    elif isinstance(node, ast.Subscript):
        yield node.slice
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in LOOK_UPS:
            yield from node.args[:1]
        elif isinstance(node.func, ast.Name) and node.func.id == "dict":
            yield from (ast.copy_location(ast.Constant(k.arg), k.value) for k in node.keywords if k.arg)
    elif isinstance(node, ast.Dict) and not (module.is_dialect and _is_vocabulary(node)):
        yield from filter(None, node.keys)


def _is_vocabulary(node: ast.Dict) -> bool:
    """Whether a dictionary only says one word for another.

    What KServe calls ``Standard`` is our ``raw``, and a status says it the other way round. That a dialect has a word for
    a mode is a part of what the dialect means; a mode that it has no word for goes by its own name. Nothing is done
    there, which a table of functions or settings by mode would do.
    """
    return all(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in (*node.keys, *node.values))


def registered() -> Mapping[str, str]:
    """Return the distribution of every dialect and mode by name."""
    found = plugins.load()
    return {
        name: found.sources[f"{hook}:{name}"]
        for hook, named in (("servery_dialects", found.dialects), ("servery_modes", found.modes))
        for name in named
    }


def modules(names: Mapping[str, str]) -> Iterator[Module]:
    for path in SOURCES:
        package, _, inside = str(path.relative_to(ROOT)).partition("/src/")
        distribution = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]["name"]
        yield Module(
            inside.removesuffix(".py").removesuffix("/__init__").replace("/", "."),
            ast.parse(path.read_text()),
            frozenset(name for name, origin in names.items() if origin == distribution),
            package.startswith("plugins/dialects/"),
        )


def found_in(all_modules: list[Module], names: Mapping[str, str]) -> list[str]:
    constants = Constants(frozenset(names))
    for module in all_modules:
        constants.learn(module)
    return [branch for module in all_modules for branch in branches(module, constants)]


def test_nothing_asks_for_a_dialect_or_a_mode_by_name() -> None:
    names = registered()
    assert len(names) >= 6
    scanned = list(modules(names))
    assert {name for module in scanned for name in module.own} == set(names), "every plugin is among the sources"
    assert found_in(scanned, names) == []


CONSTANTS = """
import enum
RAW = "raw"
PLAIN = frozenset({"raw", "other"})
class Modes(enum.StrEnum):
    RAW = "raw"
"""

BRANCHES = {
    "equal": 'if plan.mode == "raw": act()',
    "the other way round": 'act() if "raw" == mode else None',
    "unequal": 'done = mode != "raw"',
    "identical": 'done = mode is "raw"',
    "among": 'done = mode in ("raw", "knative")',
    "not among": 'done = mode not in {"knative", "raw"}',
    "in a text": 'done = "raw" in modes',
    "a case": 'match mode:\n    case "raw": act()',
    "one of a case's": 'match mode:\n    case "x" | "raw": act()',
    "looked up": 'modes.get("raw")',
    "subscript": 'modes["raw"]',
    "part of a subscript": 'modes["raw", 1]',
    "the beginning": 'mode.startswith("raw")',
    "table of functions": 'table = {"raw": act, "knative": other}\ntable[mode]()',
    "looked up at once": '{"raw": 1}.get(mode)',
    "table of words outside a dialect": 'words = {"raw": "Standard"}',
    "table by keywords": "dict(raw=act)[mode]",
    "constant of its own": 'ONE = "raw"\ndone = mode == ONE',
    "constant in a function": 'ONE: str = "raw"\ndef f(mode): return mode == ONE',
    "collection of its own": 'SOME = ("x", "raw")\ndone = mode in SOME',
    "constant": "from words import RAW\ndone = mode == RAW",
    "renamed constant": "from words import RAW as one\ndone = mode == one",
    "constant of a module": "import words\ndone = mode == words.RAW",
    "constant of a package's module": "from package import words\ndone = mode == words.RAW",
    "collection": "from words import PLAIN\ndone = mode in PLAIN",
    "member": "from words import Modes\ndone = mode is Modes.RAW",
    "member's value": "from words import Modes\ndone = mode == Modes.RAW.value",
    "member of a module": "import words\ndone = mode == words.Modes.RAW",
    "case of a member": "from words import Modes\nmatch mode:\n    case Modes.RAW: act()",
    "table by members": "from words import Modes\ntable = {Modes.RAW: act}",
}

NO_BRANCHES = {
    "default of a setting": 'class Settings:\n    default_mode: str = "raw"',
    "handed on": 'plan(mode="raw")',
    "any name": "done = mode == other\nmodes[plan.mode].render(plan)",
    "another word": 'done = mode == "rawhide"',
    "default of a look-up": 'WORDS.get(word, "raw")',
    "said": 'raise ValueError("mode raw cannot")',
}


def planted(source: str, *, own: frozenset[str] = frozenset(), is_dialect: bool = False) -> list[str]:
    words = [Module(name, ast.parse(CONSTANTS)) for name in ("words", "package.words")]
    return found_in([*words, Module("planted", ast.parse(source), own, is_dialect)], {"raw": "a", "knative": "b"})


@pytest.mark.parametrize("source", BRANCHES.values(), ids=list(BRANCHES))
def test_branch_by_name_is_found(source: str) -> None:
    assert any("'raw'" in found for found in planted(source)), source
    assert planted(source, own=frozenset({"raw", "knative"})) == [], "its own plugin may"


@pytest.mark.parametrize("source", NO_BRANCHES.values(), ids=list(NO_BRANCHES))
def test_what_is_no_branch_is_left_alone(source: str) -> None:
    assert planted(source) == []


def test_dialects_table_of_words_is_its_meaning_and_one_of_functions_is_not() -> None:
    assert planted('WORDS = {"raw": "Standard", "knative": "Serverless"}', is_dialect=True) == []
    assert planted('WORDS = {"Standard": "raw"}', is_dialect=True) == []
    assert planted('ACTS = {"raw": act}', is_dialect=True) != []
    assert planted('done = mode == "raw"', is_dialect=True) != []
