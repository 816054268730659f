"""Fingerprints of code: what a rule runs counts among its inputs.

The fingerprint of a component is a hash over the syntax trees, without docstrings, of its module
and of all modules of the package that it imports, directly or not, and over the versions of the
libraries that compute. Comments, docstrings and formatting change nothing.
"""

__all__ = ["code_of", "digest"]

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grimp

from priorflow.components import source_of

PACKAGE = Path(__file__).parent


def digest(value: Any, length: int = 16) -> str:
    """A hash of anything that JSON can write; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def code_of(
    targets: Iterable[str], base: Path, libraries: Iterable[str] = ("torch", "numpy")
) -> str:
    """The fingerprint of components given by their paths (see `priorflow.components`).

    Args:
        targets: Paths such as `priorflow.metrics.crps:crps` or `./mine.py:Mine`.
        base: The folder of the experiment file.
        libraries: Distributions whose versions count.
    """
    files: set[Path] = set()
    for target in targets:
        file, _ = source_of(target, base)
        files |= _closure(file)
    hashes = sorted(_file_hash(file, file.stat().st_mtime_ns) for file in files)
    return digest([hashes, [f"{name} {version(name)}" for name in sorted(libraries)]])


@lru_cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("priorflow", cache_dir=None)


@lru_cache
def _closure(file: Path) -> frozenset[Path]:
    """The file, and the package's modules that it imports, directly or not."""
    if file.is_relative_to(PACKAGE):
        roots = {_module_name(file)}
    else:
        roots = _package_imports(file) & _graph().modules
    modules = roots.union(*(_graph().find_upstream_modules(root) for root in roots))
    return frozenset({file, *map(_module_file, modules)})


def _package_imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module_file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@lru_cache
def _file_hash(file: Path, mtime: int) -> str:
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
