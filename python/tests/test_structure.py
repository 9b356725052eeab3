"""How the modules of the package depend on each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import convelo

ROOT = Path(convelo.__file__).parent
STUBS = {"convelo._convelo"}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {
    name_of(file): ast.parse(file.read_text())
    for file in sorted(ROOT.rglob("*.py*"))
    if file.suffix in (".py", ".pyi")
}

# What the genuine package has subclasses of its communicators implement and use.
OF_SUBCLASSES = {"_connections", "_receive_handler", "_initialize", "_send", "_shutdown"}

# Public in spite of its name.
OF_NAMED_TUPLES = {"_asdict"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imports(module: str, *, types: bool) -> set[str]:
    """The modules of ours that a module imports by its statements, with those for types or not."""
    found: set[str] = set()
    if module in STUBS and not types:
        return found

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            if not types:
                for inner in node.orelse:
                    visit(inner)
                return
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                inner_module = f"{node.module}.{name.name}"
                found.add(inner_module if inner_module in MODULES else node.module)
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        for inner in ast.iter_child_nodes(node):
            visit(inner)

    visit(MODULES[module])
    return {name for name in found if name in MODULES} - {module}


def circles(edges: dict[str, set[str]]) -> set[frozenset[str]]:
    """The modules that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        pending = [start]
        while pending:
            for other in edges[pending.pop()] - seen:
                seen.add(other)
                pending.append(other)
        return seen

    reach = {module: reached(module) for module in edges}
    groups = {
        frozenset(other for other in edges if other in reach[module] and module in reach[other])
        for module in edges
    }
    return {group for group in groups if len(group) > 1}


def private_uses(module: str) -> Iterator[str]:
    tree = MODULES[module]
    own = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own |= {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr not in own | OF_SUBCLASSES | OF_NAMED_TUPLES:
                yield f"{module}:{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("convelo"):
            for name in node.names:
                if is_private(name.name) and f"{node.module}.{name.name}" not in MODULES:
                    yield f"{module}:{node.lineno}: {node.module}.{name.name}"


def test_no_module_uses_private_members_of_another() -> None:
    assert [use for module in MODULES for use in private_uses(module)] == []


def test_circles_are_of_types_only() -> None:
    assert not circles({module: imports(module, types=False) for module in MODULES})
    with_types = {module: imports(module, types=True) for module in MODULES}
    assert circles(with_types) == {frozenset(("convelo._convelo", "convelo._engine"))}


def test_the_newer_api_stands_on_its_own() -> None:
    for module in MODULES:
        if module.startswith("convelo.compat.tno5"):
            others = imports(module, types=True)
            assert not [name for name in others if name.startswith("convelo.compat.tno.")], module
