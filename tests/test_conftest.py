"""The guard of conftest.py: a test that is skipped for a reason that is not allowed fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CASES = """
import pytest

@pytest.fixture
def unavailable():
    pytest.skip("no time")

def test_skipped_inside():
    pytest.skip("no time")

@pytest.mark.skip(reason="no time")
def test_skipped_by_mark(): pass

@pytest.mark.skipif(True, reason="no time")
def test_skipped_by_condition(): pass

def test_skipped_by_fixture(unavailable): pass

@pytest.mark.xfail(reason="known")
def test_expected_to_fail(): assert False

def test_good(): pass
"""


def test_an_unexpected_skip_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.skip('no time', allow_module_level=True)\n")
    (tmp_path / "test_import.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run([*command, "--continue-on-collection-errors"], cwd=ROOT, capture_output=True, text=True)
    counts = dict(
        reversed(pair.split(" ")) for pair in re.findall(r"\d+ [a-z]+(?=,| in)", done.stdout.splitlines()[-1])
    )
    assert counts.pop("passed") == counts.pop("xfailed") == "1"
    assert sum(map(int, counts.values())) == 6
    assert set(counts) <= {"failed", "error", "errors"}
    assert done.stdout.count("(tests/conftest.py does not allow this skip)") >= 6
