"""Components named in an experiment file: a class or function by dotted path, and its arguments.

A component is written as `{class: package.module:Name, argument: value, …}`; `./file.py:Name` names
one in a file of the user's, relative to the experiment file. Names and arguments are checked in the
source text, without importing it, so that a mistake is found before any work is done.
"""

__all__ = ["BadInput", "build", "check", "load", "source_of"]

import ast
import importlib
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any


class BadInput(ValueError):
    """Something that the user wrote is wrong; the message is one line for the user."""


def source_of(path: str, base: Path) -> tuple[Path, str]:
    """The source file and the attribute that a component's path names.

    Args:
        path: `package.module:Name`, or `./file.py:Name` relative to `base`.
        base: The folder of the experiment file.

    Raises:
        BadInput: There is no such file or module.
    """
    module, _, name = str(path).partition(":")
    if not name:
        raise BadInput(f"{path!r} is not of the form package.module:Name or ./file.py:Name")
    if module.endswith(".py"):
        file = (base / module).resolve()
        if not file.is_file():
            raise BadInput(f"{path!r}: there is no file {file}")
        return file, name
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise BadInput(f"{path!r}: there is no module {module}")
    return Path(spec.origin), name


def load(path: str, base: Path) -> Any:
    """Import the object that a component's path names."""
    file, name = source_of(path, base)
    module = path.partition(":")[0]
    if module.endswith(".py"):
        key = f"priorflow_user_{file.stem}_{zlib.crc32(str(file).encode()):08x}"
        if key not in sys.modules:
            spec = importlib.util.spec_from_file_location(key, file)
            sys.modules[key] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[key])
        return getattr(sys.modules[key], name)
    return getattr(importlib.import_module(module), name)


def build(spec: Mapping[str, Any], base: Path, **context: Any) -> Any:
    """Call the component with its arguments.

    Args:
        spec: The component as written, with the key `class`.
        base: The folder of the experiment file.
        context: What the workflow offers (`system`, `shape`, …): passed where the component has a
            parameter of that name that the specification does not set.
    """
    target = load(spec["class"], base)
    arguments = {key: value for key, value in spec.items() if key != "class"}
    known = inspect.signature(target).parameters
    arguments |= {key: context[key] for key in context.keys() & known.keys() - arguments.keys()}
    try:
        return target(**arguments)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{spec['class']}: {error}") from error


def check(spec: Mapping[str, Any], base: Path) -> None:
    """Check, without importing it, that a component exists and takes its arguments.

    Raises:
        BadInput: Names the component, the argument and what is allowed.
    """
    file, name = source_of(spec["class"], base)
    node = _definitions(file).get(name)
    if node is None:
        raise BadInput(f"{spec['class']!r}: {file.name} does not define {name}")
    allowed = _parameters(node, file)
    if allowed is None:
        return
    unknown = sorted(spec.keys() - {"class"} - allowed)
    if unknown:
        options = ", ".join(sorted(allowed)) or "none"
        raise BadInput(f"{unknown[0]}: {name} has no such argument; allowed: {options}")


@lru_cache
def _definitions(file: Path) -> dict[str, ast.AST]:
    try:
        tree = ast.parse(file.read_text())
    except SyntaxError as error:
        raise BadInput(f"{file}:{error.lineno}: {error.msg}") from error
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def _parameters(node: ast.AST, file: Path) -> set[str] | None:
    """The names of the arguments of a definition, or None where the text does not tell."""
    if not isinstance(node, ast.ClassDef):
        return _arguments(node)
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            arguments = _arguments(member)
            return None if arguments is None else arguments - {"self"}
    fields = set(_fields(node))
    for parent in node.bases:
        known = _definitions(file).get(getattr(parent, "id", ""))
        inherited = _parameters(known, file) if known is not None else None
        if inherited is None and not _is_dataclass(node):
            return None
        fields |= inherited or set()
    return fields


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.dump(decorator) for decorator in node.decorator_list)


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for member in node.body:
        if isinstance(member, ast.AnnAssign) and "ClassVar" not in ast.dump(member.annotation):
            yield member.target.id


def _arguments(node: ast.AST) -> set[str] | None:
    arguments = node.args
    if arguments.kwarg is not None:
        return None
    return {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
