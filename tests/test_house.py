"""The house rules: who may import whom, what must not be imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# room -> the rooms of ours it may import besides itself; tuner.errors and the version are open to all of tuner.
MAY = {
    "tuner.spec": set[str](),
    "tuner.training": {"tuner.spec"},
    "tuner.search": {"tuner.spec"},
    "tuner.records": {"tuner.spec"},
    "tuner.packing": {"tuner.training", "tuner.spec"},
    "tuner.runner": {"tuner.search", "tuner.training", "tuner.spec", "tuner.records", "tuner.packing"},
    "tuner.cluster": {"tuner.spec", "tuner.records"},
    "tuner.delivery": {"tuner.training", "tuner.spec", "tuner.records"},
    "analysis": set[str](),
}
OPEN = {"tuner", "tuner.errors"}
# package -> the only rooms that may import it
ONLY = {
    "ray": {"tuner.runner", "tuner.cluster"},
    "torch": {"tuner.training", "tuner.runner", "tuner.delivery", "tuner.packing"},
    "torchvision": {"tuner.training", "tuner.delivery"},
    "optuna": {"tuner.search", "analysis"},
    "pandas": {"analysis"},
    "plotly": {"analysis"},
    "seaborn": {"analysis"},
    "ruamel": {"tuner.spec"},
}
HEAVY = {
    "onnx",
    "onnxruntime",
    "torchao",
    "captum",
    "pytorch_grad_cam",
    "torch",
    "torchvision",
    "ray",
    "optuna",
    "pandas",
    "plotly",
    "seaborn",
    "matplotlib",
    "sklearn",
    "scipy",
}


def modules() -> list[tuple[str, Path]]:
    paths = [*ROOT.glob("tuner/**/*.py"), *ROOT.glob("analysis/**/*.py")]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts), path) for path in sorted(paths)]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str | None:
    return next((name for name in MAY if module == name or module.startswith(name + ".")), None)


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_rooms_import_only_whom_they_may(module: str, path: Path) -> None:
    home = room(module)
    for name in imports(path):
        other = room(name)
        if home and other and other != home:
            assert other in MAY[home], f"{module} imports {name}"
        if home == "analysis":
            assert not name.startswith("tuner"), f"{module} imports {name}"
        elif home and name.startswith("tuner") and other is None:
            assert name in OPEN or name.startswith("tuner.errors."), f"{module} imports {name}"
        package = name.split(".")[0]
        if package in ONLY and module != "tuner.cli":
            assert home in ONLY[package], f"{module} imports {name}"


@pytest.mark.parametrize("module", ["tuner.cli", "tuner.spec.space", "tuner.records.writer", "analysis.folders.runs"])
def test_importing_it_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_the_commands_are_listed_before_anything_but_typer_is_imported() -> None:
    code = "import sys, tuner.cli; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "numpy", "msgspec", "ruamel", "jinja2"} & set(done.stdout.split())  # 0.2 s of `--help`


@pytest.mark.parametrize("path", [path for _, path in modules()], ids=str)
def test_every_file_says_why_it_exists(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
