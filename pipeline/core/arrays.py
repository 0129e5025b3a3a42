"""Arrays of numbers in `.npy` files, as steps leave them: read without running what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlmill.pipeline.core.errors import StoreError


def read_array(path: Path, *, mapped: bool = True) -> np.ndarray:
    """The numbers in an `.npy` file, mapped or in memory.

    Objects in it are not read: to read them would run what they say.

    Raises:
        StoreError: the file is not there, damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)  # other forms than arrays are none of ours
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}); `vlmill verify` says what else is damaged, and the way out"
        ) from error
    return array
