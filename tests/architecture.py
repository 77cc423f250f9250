"""The rules of the house as functions over sources; test_architecture.py applies them to this repository.

Sources are a mapping from a path ("routing/decide.py") to its text, so that every rule can be shown to fail on a small
example. A rule returns its findings, one line each, with the place first.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

Sources = Mapping[str, str]

PACKAGES = ("pricing", "routing", "gateway")
MAY_IMPORT = {"pricing": {"pricing"}, "routing": {"pricing", "routing"}, "gateway": {"pricing", "routing", "gateway"}}
PURE = ("pricing", "routing")
# What a pure package must not import: clocks, randomness of their own, the system, the network, files, concurrency.
IMPURE_MODULES = frozenset({
    "asyncio", "concurrent", "fcntl", "glob", "http", "io", "logging", "mmap", "multiprocessing", "os", "pathlib",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile",
    "threading", "time", "urllib", "uuid",
})  # fmt: skip
IMPURE_CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__"})
CLOCK_READERS = frozenset({"now", "utcnow", "today"})
SANS_IO = "gateway/wire/"
IO_MODULES = frozenset({"asyncio", "aiohttp", "httpx", "socket", "ssl", "uvloop"})
FILE_LINES_MAX = 420
FUNCTION_LINES_MAX = 65
LONGER_FILES = frozenset({"gateway/edge/connection.py"})
VAGUE_NAMES = frozenset({"utils", "common", "helpers", "manager", "types"})
# Places of one machine and hosts of package indexes; cut in two so that this file does not mention them.
UNMENTIONABLE = (
    "/wo" "rk/",
    "/tmp/ba" "sh",
    "py" "pi.org",
    "python" "hosted.org",
    "registry.np" "mjs.org",
    "crates" ".io",
    "proxy.go" "lang.org",
)  # fmt: skip


def module_of(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(path: str) -> str:
    return PurePosixPath(path).parts[0]


def imports(path: str, tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Every import: line, module, and the name taken from it ("" for a whole module)."""
    parent = module_of(path).split(".")
    if not path.endswith("__init__.py"):
        parent = parent[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = parent[: len(parent) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, module, alias.name


def parsed(sources: Sources, packages: tuple[str, ...] = PACKAGES) -> Iterator[tuple[str, ast.Module]]:
    for path, text in sources.items():
        if path.endswith(".py") and package_of(path) in packages:
            yield path, ast.parse(text, path)


def wrong_directions(sources: Sources) -> list[str]:
    """pricing <- routing <- gateway, never back; the pure packages know nothing outside the standard library."""
    found = []
    for path, tree in parsed(sources):
        package = package_of(path)
        for line, module, _ in imports(path, tree):
            top = module.partition(".")[0]
            if top in PACKAGES and top not in MAY_IMPORT[package]:
                found.append(f"{path}:{line} imports {module}: {package} must not know {top}")
            if package in PURE and top not in PACKAGES and top not in sys.stdlib_module_names:
                found.append(f"{path}:{line} imports {module}: {package} uses the standard library only")
    return found


def impurities(sources: Sources) -> list[str]:
    """No clock, no hidden randomness, no socket, file, log or async in the pure packages."""
    found = []
    for path, tree in parsed(sources, PURE):
        for line, module, name in imports(path, tree):
            if module.partition(".")[0] in IMPURE_MODULES:
                found.append(f"{path}:{line} imports {module}")
            if module == "random" and name not in ("", "Random"):
                found.append(f"{path}:{line} imports random.{name}: chance is an argument")
        found += [f"{path}:{node.lineno} {offence}" for node, offence in _impure_nodes(tree)]
    return found


def _impure_nodes(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith() | ast.Await():
                yield node, "is asynchronous"
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
                yield node, f"uses random.{name}: chance is an argument"
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCK_READERS:
                yield node, f"reads a clock ({name}): time is an argument"
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield node, f"calls {name}"


def wire_input_output(sources: Sources) -> list[str]:
    """The codecs are sans-I/O."""
    found = []
    for path, tree in parsed(sources, ("gateway",)):
        if path.startswith(SANS_IO):
            for line, module, _ in imports(path, tree):
                if module.partition(".")[0] in IO_MODULES:
                    found.append(f"{path}:{line} imports {module}")
    return found


def import_cycles(sources: Sources) -> list[str]:
    """Modules that import each other, however long the way round; imports inside functions count."""
    modules = {module_of(path): path for path in sources if path.endswith(".py")}
    graph: dict[str, set[str]] = {}
    for path, tree in parsed(sources):
        targets = graph.setdefault(module_of(path), set())
        for _, module, name in imports(path, tree):
            target = f"{module}.{name}" if f"{module}.{name}" in modules else module
            if target in modules and target != module_of(path):
                targets.add(target)
    found = set()
    for start in graph:
        way = _way_back(graph, start)
        if way:
            first = way.index(min(way))
            found.add(" -> ".join([*way[first:], *way[:first], way[first]]))
    return sorted(found)


def _way_back(graph: Mapping[str, set[str]], start: str) -> list[str]:
    """A shortest way from a module to itself, or nothing."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:
        for target in sorted(graph.get(way[-1], ())):
            if target == start:
                return way
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


def oversized(sources: Sources) -> list[str]:
    """Files and functions that have become two."""
    found = []
    for path, text in sources.items():
        if not path.endswith(".py"):
            continue
        lines = text.count("\n")
        if lines > FILE_LINES_MAX and path not in LONGER_FILES:
            found.append(f"{path}: {lines} lines")
        for node in ast.walk(ast.parse(text, path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    found.append(f"{path}:{node.lineno} {node.name}: {length} lines")
    return found


def vague_names(sources: Sources) -> list[str]:
    """Modules and packages whose name says nothing about what is in them."""
    return [path for path in sources if path.endswith(".py") and VAGUE_NAMES & set(module_of(path).split("."))]


def mentions(sources: Sources) -> list[str]:
    """Places of one machine and hosts of package indexes, in any text file."""
    pattern = re.compile("|".join(map(re.escape, UNMENTIONABLE)))
    return [
        f"{path}:{number} mentions {match[0]}"
        for path, text in sources.items()
        for number, line in enumerate(text.splitlines(), 1)
        for match in pattern.finditer(line)
    ]
