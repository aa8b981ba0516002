"""Imports point one way, heavy libraries stay in the folder that owns them, and the core meets no outside world."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = SOURCE / "modbot"

LAYERS = (
    {"errors", "words"},
    {"records"},
    {"rules", "signals"},
    {"files"},
    {"settings"},
    {"fetch", "models", "sources"},
    {"stages"},
    {"engine"},
    {"cli", "review"},
)
"""From the lowest: each may import those below it and itself, never a neighbour."""

OWNERS = {
    "PIL": {"models"},
    "aiohttp": {"fetch"},
    "click": {"cli"},
    "cv2": {"models"},
    "dotenv": {"settings"},
    "httpx2": {"models"},
    "huggingface_hub": {"models"},
    "imagehash": {"models"},
    "jsonschema_rs": {"stages"},
    "numpy": {"files", "models", "stages"},
    "onnx": {"models"},
    "onnxruntime": {"models"},
    "rich": {"cli"},
    "yaml": {"files", "models", "rules", "stages"},
    "yarl": {"fetch"},
}
"""Who may import a library. msgspec is everywhere; a library that is not here has no owner yet."""

EVERYWHERE = {"msgspec"}
PURE = {"records", "rules", "signals"}
OUTSIDE_WORLD = {
    "asyncio",
    "io",
    "os",
    "pathlib",
    "random",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "time",
}
OUTSIDE_CALLS = {"input", "open", "print"}
CLOCKS = {"now", "today", "utcnow"}
PURE_SYS = {"float_info", "intern", "maxsize"}


@dataclass(frozen=True)
class Import:
    """One import statement's module, and the names that are taken from it."""

    place: str
    unit: str
    module: str
    names: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]

    @property
    def imported_unit(self) -> str | None:
        """The folder or module of modbot that is imported; None for modbot itself (its version)."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else None


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"


def _imports() -> Iterator[Import]:
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(_place(path, node), _unit(path), alias.name)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{_place(path, node)}: a relative import"
                names = tuple(alias.name for alias in node.names)
                yield Import(_place(path, node), _unit(path), node.module or "", names)


IMPORTS = list(_imports())
RANK = {unit: rank for rank, units in enumerate(LAYERS) for unit in units}


def test_every_folder_has_its_layer() -> None:
    units = {_unit(path) for path in _modules()} - {"__init__"}
    assert units - set(RANK) == set()


def test_imports_point_one_way() -> None:
    breaches = [
        f"{each.place}: {each.unit} imports {each.module}"
        for each in IMPORTS
        if each.root == "modbot"
        and each.imported_unit not in {None, each.unit}
        and RANK[str(each.imported_unit)] >= RANK[each.unit]
    ]
    assert breaches == []


def test_commands_leave_the_partition_to_the_stages() -> None:
    """Whoever writes a partition holds it: a stage that is called from elsewhere does too."""
    assert [each.place for each in IMPORTS if each.unit == "cli" and each.module == "modbot.files.lease"] == []


def test_libraries_stay_with_their_owner() -> None:
    ours = {"modbot", *sys.stdlib_module_names, *EVERYWHERE}
    breaches = [
        f"{each.place}: {each.unit} imports {each.root}"
        for each in IMPORTS
        if each.root not in ours and each.unit not in OWNERS.get(each.root, set())
    ]
    assert breaches == []


def test_the_core_meets_no_file_no_clock_no_environment() -> None:
    imports = [f"{each.place}: {each.root}" for each in IMPORTS if each.unit in PURE and each.root in OUTSIDE_WORLD]
    calls = [
        f"{_place(path, node)}: {ast.unparse(node)}"
        for path in _modules()
        if _unit(path) in PURE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and _asks_the_outside(node.func)) or _is_of_the_process(node)
    ]
    assert imports + calls == []


def _asks_the_outside(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in OUTSIDE_CALLS
    return isinstance(function, ast.Attribute) and function.attr in CLOCKS


def _is_of_the_process(node: ast.AST) -> bool:
    """What `sys` knows of this process: its arguments, its streams, its modules."""
    match node:
        case ast.Attribute(value=ast.Name(id="sys"), attr=attr):
            return attr not in PURE_SYS
        case ast.ImportFrom(module="sys", names=names):
            return not PURE_SYS.issuperset(alias.name for alias in names)
    return False


@pytest.mark.parametrize(
    ("value", "home"),
    [
        (["red", "orange", "yellow", "green"], "records/finding.py"),
        ("configs/rules.yaml", "files/paths.py"),
        ("configs/hashlists.yaml", "files/paths.py"),
    ],
)
def test_what_several_folders_share_is_spelled_once(value: object, home: str) -> None:
    spelled = {
        str(path.relative_to(PACKAGE))
        for path in _modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if _value(node) == value
    }
    assert spelled == {home}


def _value(node: ast.AST) -> object:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return [_value(part) for part in parts]
    return None


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_import_succeeds(path: Path) -> None:
    """Those inside functions too, which nothing else would execute."""
    for each in IMPORTS:
        if each.place.startswith(f"{path.relative_to(SOURCE)}:"):
            module = importlib.import_module(each.module)
            for name in each.names:
                if not hasattr(module, name):
                    importlib.import_module(f"{each.module}.{name}")
