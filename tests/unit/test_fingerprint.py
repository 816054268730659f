"""Fingerprints change with what is computed, and with nothing else."""

from pathlib import Path

import pytest

from priorflow.fingerprint import code_of, digest

HERE = Path(__file__).parent
CRPS = "priorflow.metrics.crps:crps"


def of(file: Path, text: str) -> str:
    file.write_text(text)
    return code_of([f"./{file.name}:f"], file.parent)


def test_comments_docstrings_and_layout_do_not_count(tmp_path):
    file = tmp_path / "mine.py"
    first = of(file, '"""One."""\n\n\ndef f(x):\n    """Twice x."""\n    return 2 * x\n')
    second = of(file, "# a remark\ndef f(x):\n    return (2\n            * x)  # twice\n")
    third = of(file, "def f(x):\n    return 3 * x\n")
    assert first == second != third


def test_imports_of_the_package_count(tmp_path):
    file = tmp_path / "mine.py"
    alone = of(file, "def f(x):\n    return x\n")
    with_package = of(file, "from priorflow.metrics.crps import crps\n\ndef f(x):\n    return x\n")
    assert alone != with_package


def test_libraries_count():
    assert code_of([CRPS], HERE, ("torch",)) != code_of([CRPS], HERE, ("numpy",))


def test_methods_do_not_count_for_each_other():
    """A filter's closure has no other filter in it, and no stage: otherwise all would be stale."""
    from priorflow.fingerprint import _closure
    from priorflow.solvers.assimilation import enkf

    names = {file.stem for file in _closure(Path(enkf.__file__))}
    assert {"enkf", "base", "rng"} <= names
    assert not names & {"bpf", "sda", "flowdas", "config", "infer", "crps"}


@pytest.mark.parametrize("stage", ["simulate", "chunk", "observe", "train", "infer", "evaluate"])
def test_stages_do_not_depend_on_the_configuration(stage):
    """Or an edit of the schema would make every result stale."""
    from importlib.util import find_spec

    from priorflow.fingerprint import _closure

    files = _closure(Path(find_spec(f"priorflow.stages.{stage}").origin))
    assert not {file.stem for file in files} & {"config", "cli", "fingerprint"}


def test_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
