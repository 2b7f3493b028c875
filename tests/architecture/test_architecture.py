"""The house rules that a program can check: who imports whom, and how long things are."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.drivers import registry

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tenure"

MODULE_LINES_MAX = 450
FUNCTION_LINES_MAX = 60
# The kit's lists of short cases and the simulator's world are longer than a module should be.
TESTING_LINES_MAX = 540

CONCURRENCY = {"asyncio", "threading", "time", "_thread", "concurrent"}
CLIENTS = {
    "redis",
    "hiredis",
    "psycopg",
    "psycopg_pool",
    "grpc",
    "google",
    "pymysql",
    "sqlalchemy",
    "sqlite3",
    "kazoo",
    "zake",
}

# From the bottom up; a module may import what stands above it here, and itself.
LAYERS = {
    "errors": set[str](),
    "_model": {"errors"},
    "_url": {"errors"},
    "_names": set[str](),
    "_caller": set[str](),
    "_ungated": {"errors", "_url"},
    "_hashring": {"errors"},
    "_verdicts": {"_model"},
    "_runtime": {"errors"},
    "wires": {"errors", "_model", "_url", "_runtime.base"},
    "drivers": {"errors", "_model", "_url", "_runtime.base", "wires"},
    "_callbacks": {"_runtime.base"},
    "_entered": {"errors"},
    "_gate": {"errors", "_runtime.base"},
    "_session": {"errors", "_model", "_runtime.base", "_callbacks", "_gate", "drivers.base"},
    "_lease": {"errors", "_model", "_runtime.base", "_callbacks", "_gate", "_session"},
    "_recipes": {
        *("errors", "_model", "_names", "_hashring", "_verdicts", "_gate", "_lease", "_session"),
        *("_runtime.base", "_callbacks", "drivers.base"),
    },
    "policy": {
        *("errors", "_model", "_url", "_caller", "_ungated", "drivers.registry", "drivers.base"),
    },
    "_coordinator": {
        *("errors", "_model", "_url", "_caller", "_runtime.base", "_session", "drivers.registry"),
        *("_ungated", "policy"),
    },
    "_sync": {
        *("errors", "_model", "_hashring", "_lease", "_session", "_recipes", "_coordinator"),
        *("_runtime", "_caller", "_entered", "policy"),
    },
    "aio": {
        *("errors", "_model", "_hashring", "_lease", "_session", "_recipes", "_coordinator"),
        *("_runtime", "_caller", "_entered", "policy"),
    },
    "__init__": {
        *("errors", "_model", "_hashring", "_lease", "_sync", "_recipes", "_runtime._clock"),
        "policy",
    },
    "objectlock": {"_sync"},
    "compat": {
        *("errors", "_model", "_url", "_runtime", "_coordinator", "_sync", "drivers.registry"),
        "policy.standing",
    },
    "__main__": {"cli"},
}


def modules(under: str = "") -> Iterator[Path]:
    yield from sorted((PACKAGE / under).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a module imports, wherever it does so."""
    package = ("tenure", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += [node.module] if node.module else []
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def inside(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(allowed + ".")


def test_imports_run_one_way() -> None:
    """Each part of the library imports only what stands below it."""
    wrong = []
    for path in modules():
        own = layer(path)
        if own in ("cli", "testing"):
            continue
        for line, name in imports(path):
            if not inside(name, "tenure") or inside(name, f"tenure.{own}"):
                continue
            if not any(inside(name, f"tenure.{below}") for below in LAYERS[own]):
                wrong.append(f"{name_of(path)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_tests_tools() -> None:
    """The library and its command line never import `tenure.testing`, but for one command."""
    wrong = [
        f"{name_of(path)}:{line}"
        for path in modules()
        if layer(path) != "testing" and name_of(path) != "cli/verify.py"
        for line, name in imports(path)
        if inside(name, "tenure.testing")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_command_line_brings_no_tests_tools() -> None:
    """`tenure verify` imports `tenure.testing` when it runs, and no other command ever does."""
    assert not [name for name in fresh(LOADED.format("import tenure.cli")) if ".testing" in name]


def test_only_leaves_know_threads_loops_and_clocks() -> None:
    """asyncio, threading and time are for `_runtime`, `wires`, the asyncio API and the tools.

    Another library's API may have threads of its own, as Tooz's heart is one.
    """
    free = ("_runtime", "wires", "aio", "cli", "testing", "compat")
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in modules()
        if layer(path) not in free
        for line, name in imports(path)
        if name.partition(".")[0] in CONCURRENCY
    ]
    assert not wrong, "\n".join(wrong)


def test_drivers_do_no_network_of_their_own() -> None:
    """Sockets, processes, signals and client libraries belong to `wires`, not to drivers."""
    forbidden = CLIENTS | {"socket", "select", "selectors", "ssl", "subprocess", "signal", "http"}
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in modules()
        if layer(path) not in ("wires", "testing", "cli")
        for line, name in imports(path)
        if name.partition(".")[0] in forbidden
    ]
    assert not wrong, "\n".join(wrong)


def test_drivers_do_not_know_each_other() -> None:
    """A driver imports base, document and its own helpers; only the registry names them all."""
    wrong = []
    drivers = {path.stem for path in modules("drivers") if not path.stem.startswith("_")}
    drivers -= {"base", "document", "registry"}
    for path in modules("drivers"):
        for line, name in imports(path):
            parts = name.split(".")
            if parts[:2] == ["tenure", "drivers"] and parts[2] in drivers - {path.stem}:
                wrong.append(f"{name_of(path)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_asynchronous_generator() -> None:
    """There is no asynchronous generator in the library: its end cannot be relied upon."""
    wrong = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.AsyncFunctionDef)
        and any(isinstance(each, ast.Yield) for each in own_nodes(node))
    ]
    assert not wrong, "\n".join(wrong)


def own_nodes(function: ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, without those of the functions inside of it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))


def test_modules_say_what_they_are_for() -> None:
    """Every module that is not empty begins with a docstring."""
    wrong = [name_of(path) for path in modules() if path.stat().st_size and no_text(path)]
    assert not wrong, "\n".join(wrong)


def no_text(path: Path) -> bool:
    return ast.get_docstring(parsed(path)) is None


def test_modules_are_short() -> None:
    """No module is longer than 450 lines, and none of the testing tools than 540."""
    wrong = []
    for path in modules():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > (TESTING_LINES_MAX if layer(path) == "testing" else MODULE_LINES_MAX):
            wrong.append(f"{name_of(path)}: {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_functions_are_short() -> None:
    """No function is longer than 60 lines."""
    wrong = []
    for path in modules():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    wrong.append(f"{name_of(path)}:{node.lineno} {node.name}: {lines} lines")
    assert not wrong, "\n".join(wrong)


def fresh(code: str) -> list[str]:
    """The words that a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


# What Python itself has loaded at its start says nothing about us.
LOADED = "import sys; before = set(sys.modules); {}; print(*(set(sys.modules) - before))"


def test_the_synchronous_api_brings_no_event_loop() -> None:
    """`import tenure` loads nothing but itself and the standard library, and not asyncio."""
    loaded = {name.partition(".")[0] for name in fresh(LOADED.format("import tenure"))}
    assert "asyncio" not in loaded
    assert loaded - {"tenure"} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", ["tenure", "tenure.aio", "tenure.objectlock"])
def test_nobody_pays_for_the_policy_before_connecting(module: str) -> None:
    """To import the library loads nothing of the policy; its names are there when asked for."""
    names = fresh(LOADED.format(f"import {module}"))
    assert not [name for name in names if inside(name, "tenure.policy")]
    assert fresh("import tenure.aio; print(tenure.Level(3), tenure.aio.Characteristic.FENCED)") == [
        "stable",
        "FENCED",
    ]


@pytest.mark.parametrize("scheme", sorted(registry.BUILT_IN))
def test_only_its_own_driver_brings_a_client_library(scheme: str) -> None:
    """Naming a scheme loads that driver's client library and no other driver's."""
    code = f"from tenure.drivers import registry; registry.load(registry.BUILT_IN[{scheme!r}])"
    loaded = set(fresh(LOADED.format(code)))
    entry = registry.BUILT_IN[scheme]
    foreign = {other.module for other in registry.BUILT_IN.values()} - {entry.module}
    assert not foreign & loaded
    own = {
        "redis": {"redis", "hiredis"},
        "postgresql": {"psycopg"},
        "mysql": {"pymysql"},
        "sql": {"sqlalchemy"},
        "sqlite": {"sqlite3"},
        "etcd": {"grpc", "google"},
        "zookeeper": {"kazoo"},
        "zake": {"kazoo", "zake"},
    }
    tops = {name.partition(".")[0] for name in loaded}
    assert tops & CLIENTS <= own.get(entry.extra or scheme, set())


def test_entry_points_are_the_registry() -> None:
    """The entry points in pyproject.toml and the built-in drivers of the registry are the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = project["entry-points"][registry.GROUP]
    assert listed == {scheme: entry.target for scheme, entry in registry.BUILT_IN.items()}
    extras = set(project["optional-dependencies"])
    assert {entry.extra for entry in registry.BUILT_IN.values() if entry.extra} <= extras


def test_no_dependencies() -> None:
    """The package itself depends on nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dependencies"] == []
