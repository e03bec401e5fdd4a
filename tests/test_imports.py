"""Who may import whom: rooms stand on each other, never in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("config", "data", "models", "modules", "callbacks", "scripts")
BELOW = {  # what a room may import besides itself
    "config": set(),
    "data": {"config"},
    "models": {"config"},
    "modules": {"config", "data", "models"},
    "callbacks": {"config", "data", "models", "modules"},
}
COMPOSITION_ROOTS = {"modules.run.entry", "modules.run.course", "modules.run.trainer"}  # they put everything together
SHARED_TYPES = {
    "data.batch",
    "data.boxes",
    "data.boxes.overlap",
    "data.boxes.suppression",
}  # what models and data have in common


def imports() -> dict[str, set[str]]:
    """Modules of ours by name, each with those that it imports anywhere."""
    files = {_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}
    return {name: _imported(path, files.keys()) - {name} for name, path in files.items()}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imported(path: Path, known: object) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in whole}
    return found & known


def test_no_file_imports_itself_in_a_circle() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_rooms_import_only_what_stands_below_them() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in sorted(others)
        if (room := name.split(".")[0]) in BELOW
        and other.split(".")[0] not in BELOW[room] | {room}
        and other not in SHARED_TYPES
        and name not in COMPOSITION_ROOTS
    ]
    assert wrong == []


def test_torch_waits_until_the_command_line_is_checked() -> None:
    """A typing error is told within a second: what train.py imports at its top must not import torch."""
    found, todo = set(), {"config.command_line", "config.schema", "modules.run.folder"}
    graph = imports()
    while todo:
        found |= todo
        todo = set().union(*(graph[name] for name in todo)) - found
    heavy = [name for name in sorted(found) if _imports_at_top(ROOT / f"{name.replace('.', '/')}.py", "torch")]
    assert heavy == []


def test_a_start_imports_no_heavy_package_that_it_does_without() -> None:
    """Each of them takes from a tenth of a second to two; Lightning itself brings torchvision and torch._dynamo."""
    heavy = {"timm", "wandb", "tensorboard", "numba", "pycocotools", "scipy", "pandas", "imageio"}
    program = (
        "import sys\nfrom config.interpreter import quick_exit, quick_imports\n"
        f"with quick_exit(), quick_imports():\n    import modules.run.entry\n    print(*({heavy} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def _imports_at_top(path: Path, package: str) -> bool:
    path = path if path.is_file() else path.with_suffix("") / "__init__.py"
    names = [
        alias.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    return any(name.split(".")[0] in (package, "pytorch_lightning") for name in names)
