"""What a command imports: what it works with. Everything else would be time and memory of every process."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.helpers.small import write_recipe

SLOW = ("pandas", "huggingface_hub", "datasets", "ray", "torch", "transformers", "webdataset", "scipy")

BUILD = f"""
import json, sys
from vlmill.pipeline.cli import main
sys.argv = ["vlmill", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([name for name in {SLOW} if name in sys.modules]))
"""

KEPT_OUT = """
import sys
import pyarrow as pa
from vlmill.pipeline.core.arrow import keep_pandas_out
keep_pandas_out()
assert pa.array([1, None]).to_pylist() == [1, None]
assert "pandas" not in sys.modules
import pandas
assert pandas.DataFrame({"a": [1]}).shape == (1, 1)
"""

LEFT_ALONE = """
import pandas
import pyarrow as pa
from vlmill.pipeline.core.arrow import keep_pandas_out
keep_pandas_out()
assert pa.table({"a": [1]}).to_pandas().shape == (1, 1)
"""


def run_python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_a_small_build_of_local_files_imports_nothing_that_it_does_not_use(tmp_path):
    recipe = write_recipe(tmp_path)
    done = run_python(BUILD, "build", str(recipe), "--out", str(tmp_path / "out"), "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_pyarrow_does_without_pandas_and_others_do_not():
    done = run_python(KEPT_OUT)
    assert done.returncode == 0, done.stderr


def test_pandas_that_was_imported_before_is_used_as_ever():
    done = run_python(LEFT_ALONE)
    assert done.returncode == 0, done.stderr
