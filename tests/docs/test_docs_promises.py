"""Every promise names the tests that hold it, and these exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "PROMISES.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?!promise|---)(.+?) \| (.+?) \|$", TEXT, flags=re.MULTILINE)


def test_every_promise_names_tests_and_these_exist():
    assert len(ROWS) > 25
    for promise, held_by in ROWS:
        names = re.findall(r"`(tests/[^`]+)`", held_by)
        assert names, promise
        for name in names:
            path, _, function = name.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert function in functions if function else any(f.startswith("test_") for f in functions), name


def test_every_file_of_faults_and_fuzz_holds_a_promise():
    for path in [*(ROOT / "tests" / "faults").glob("test_*.py"), *(ROOT / "tests" / "fuzz").glob("test_*.py")]:
        assert path.name == "test_fuzz_regressions.py" or str(path.relative_to(ROOT)) in TEXT, path
