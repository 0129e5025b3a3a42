"""How this process imports pyarrow: without pandas.

pyarrow imports pandas, where it is installed, for the first array that it makes, to know its types: 0.3 s of CPU and 50
MB in every process. Nothing of ours makes any, so processes of ours keep it out. In a program that imports vlmill all
stays as it is.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    """Says that there is no pandas."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """See importlib.abc.MetaPathFinder."""
        del path, target
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)


@cache
def keep_pandas_out() -> None:
    """Have pyarrow look for pandas once, in vain; others import it as ever. Nothing, where it is imported already."""
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, finder := _NoPandas())
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)
