"""The code hash: it changes with all that a task refers to in its project, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.code_hash import CodeHasher

if TYPE_CHECKING:
    from conftest import Project

STEPS = '''
    """The steps."""
    import functools
    import json
    import re
    from modelyard.sdk.tasks import task
    import shapes
    from settings import LIMIT, PATTERN, Options
    from settings import NESTED as WRAPPED

    UNUSED = 1
    RATE = 0.5
    OPTIONS = Options(3)
    TABLE = {"a": [1, 2], "b": (3,)}
    NAMES = {"x", "y", "z"}

    def helper(x):
        """Helps."""
        return deeper(x) * RATE

    def deeper(x):
        return x + LIMIT

    def unrelated(x):
        return x

    @functools.lru_cache
    def cached(x):
        return x

    def make(k):
        def inner(x):
            return x * k
        return inner

    double = make(2)

    @task(cpus=1)
    def step(x):
        # a comment
        from later import late
        size = shapes.area.square(x) + OPTIONS.value + len(NAMES)
        return json.dumps([helper(x), size, cached(x), PATTERN.pattern, TABLE, late(x), WRAPPED, double(x)])
'''
FILES = {
    "steps.py": STEPS,
    "settings.py": """
        import re
        LIMIT = 10
        PATTERN = re.compile("a+")
        NESTED = {"deep": [1, {"er": 2}]}
        OTHER = 1

        class Options:
            def __init__(self, value):
                self.value = value + OFFSET

        OFFSET = 4
    """,
    "shapes/__init__.py": "from . import area\n",
    "shapes/area.py": """
        SIDE = 2
        def square(x):
            return x * SIDE
        def circle(x):
            return 3 * x
    """,
    "later.py": """
        def late(x):
            return x
    """,
}


def hash_of(project: Project, function: str = "step") -> str:
    module = project.load("steps")
    found = CodeHasher(project.root).hash(getattr(module, function).function)
    assert len(found) == 64
    return found


@pytest.fixture
def written(project: Project) -> Project:
    for name, source in FILES.items():
        project.write(name, source)
    return project


def changed(project: Project, file: str, old: str, new: str) -> str:
    assert old in FILES[file]
    project.write(file, FILES[file].replace(old, new))
    found = hash_of(project)
    project.write(file, FILES[file])
    return found


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("steps.py", "helper(x), size", "size, helper(x)"),
        ("steps.py", "deeper(x) * RATE", "deeper(x) / RATE"),
        ("steps.py", "return x + LIMIT", "return x - LIMIT"),
        ("steps.py", "RATE = 0.5", "RATE = 0.6"),
        ("steps.py", "OPTIONS = Options(3)", "OPTIONS = Options(4)"),
        ("steps.py", '"b": (3,)', '"b": (4,)'),
        ("steps.py", '"y", "z"', '"y"'),
        ("steps.py", "def cached(x):\n        return x", "def cached(x):\n        return x + 1"),
        ("steps.py", "double = make(2)", "double = make(3)"),
        ("steps.py", "return x * k", "return x + k"),
        ("settings.py", "LIMIT = 10", "LIMIT = 11"),
        ("settings.py", '"a+"', '"b+"'),
        ("settings.py", '"er": 2', '"er": 3'),
        ("settings.py", "value + OFFSET", "value - OFFSET"),
        ("settings.py", "OFFSET = 4", "OFFSET = 5"),
        ("shapes/area.py", "SIDE = 2", "SIDE = 3"),
        ("shapes/area.py", "return x * SIDE", "return SIDE * x"),
        ("later.py", "return x", "return -x"),
    ],
)
def test_it_changes_with_what_the_task_refers_to(written: Project, file: str, old: str, new: str) -> None:
    assert changed(written, file, old, new) != hash_of(written)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("steps.py", "# a comment", "# another comment"),
        ("steps.py", "@task(cpus=1)", "@task(cpus=2, retries=3)"),
        ("steps.py", '"""Helps."""', '"""Is of help."""'),
        ("steps.py", '"""The steps."""', ""),
        ("steps.py", "UNUSED = 1", "UNUSED = 2\n\n\n    MORE = 3"),
        ("steps.py", "def unrelated(x):\n        return x", "def unrelated(x):\n        return x + 1"),
        ("steps.py", '{"x", "y", "z"}', '{"z", "y", "x"}'),
        ("steps.py", "return deeper(x) * RATE", "return (deeper(x)\n            * RATE)"),
        ("settings.py", "OTHER = 1", "OTHER = 2"),
        ("shapes/area.py", "return 3 * x", "return 4 * x"),
    ],
)
def test_it_does_not_change_with_anything_else(written: Project, file: str, old: str, new: str) -> None:
    assert changed(written, file, old, new) == hash_of(written)


def test_it_is_the_same_in_every_process_and_as_a_script(written: Project) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(written.root)!r})
from pathlib import Path
import steps
from modelyard.sdk.code_hash import CodeHasher
print(CodeHasher(Path({str(written.root)!r})).hash(steps.step.function))
"""
    script = (
        FILES["steps.py"]
        + f"""
    if __name__ == "__main__":
        from pathlib import Path
        from modelyard.sdk.code_hash import CodeHasher
        print(CodeHasher(Path({str(written.root)!r})).hash(step.function))
"""
    )
    expected = hash_of(written)
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PATH": ""}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
    written.write("steps.py", script)
    in_module = hash_of(written)
    done = subprocess.run([sys.executable, str(written.root / "steps.py")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == in_module == expected


@pytest.mark.slow
def test_installed_packages_are_not_loaded_for_it(written: Project) -> None:
    source = FILES["steps.py"].replace("from later import late", "import wave, xml; from sklearn.metrics import auc")
    written.write("steps.py", source.replace("late(x)", "auc, xml.dom.minidom, wave.Error"))
    program = f"""
import sys
sys.path.insert(0, {str(written.root)!r})
from pathlib import Path
import steps
from modelyard.sdk.code_hash import CodeHasher
def now():
    return CodeHasher(Path({str(written.root)!r})).hash(steps.step.function)
before = now()
assert "sklearn" not in sys.modules and "wave" not in sys.modules
import sklearn.metrics, wave, xml.dom.minidom
assert now() == before, "what happens to be loaded must not count"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_recursion_and_cycles_end(project: Project) -> None:
    project.write(
        "steps.py",
        """
        from modelyard.sdk.tasks import task
        import other
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        class Node:
            def child(self): return Node()
        @task
        def step(n): return even(n), Node(), other.back
    """,
    )
    project.write(
        "other.py",
        """
        import steps
        def back(): return steps.step
    """,
    )
    assert hash_of(project) == hash_of(project)


def test_two_functions_of_one_name_both_count(project: Project) -> None:
    source = """
        from modelyard.sdk.tasks import task
        def make(k):
            return lambda x: x * k
        one, two = make(1), make(2)
        @task
        def step(n): return one(n), two(n)
    """
    project.write("steps.py", source)
    before = hash_of(project)
    project.write("steps.py", source.replace("make(2)", "make(3)"))
    assert hash_of(project) != before


def test_source_that_cannot_be_read_says_so() -> None:
    namespace: dict[str, object] = {}
    exec("def typed(x):\n    return x\n", namespace)
    namespace["typed"].__module__ = __name__  # type: ignore[attr-defined]
    hasher = CodeHasher(__import__("pathlib").Path("/"))
    with pytest.raises(InvalidInput, match="cannot be read"):
        hasher.hash(_claimed(namespace["typed"]))


def _claimed(function: object) -> object:
    """Pretend that a function which was typed in came from this file, but from no line of it."""
    code = function.__code__.replace(co_filename=__file__, co_firstlineno=10_000)  # type: ignore[attr-defined]
    function.__code__ = code  # type: ignore[attr-defined]
    return function
