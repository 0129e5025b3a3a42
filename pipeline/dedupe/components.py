"""Connected components by minimum-label rounds, on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def find_components(keys: NDArray[Any], one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """The smallest key that each of `keys` is connected to, itself included.

    Pure, and independent of the order of edges.

    Args:
        keys: Sorted, without repetition.
        one: First ends of the edges. An edge with an end outside `keys` does not count: it connects nothing.
        other: Second ends.
    """
    ends = np.stack([one, other])
    places = np.searchsorted(keys, ends).clip(max=max(0, keys.size - 1))
    inside = (keys[places] == ends).all(axis=0) if keys.size else np.zeros(one.size, bool)
    first, second = places[:, inside]
    labels = np.arange(keys.size)
    while True:
        lowest = np.minimum(labels[first], labels[second])
        lowered = labels.copy()
        np.minimum.at(lowered, labels[first], lowest)
        np.minimum.at(lowered, labels[second], lowest)
        lowered = _shorten_labels(lowered)
        if np.array_equal(lowered, labels):
            return keys[labels]
        labels = lowered


def _shorten_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Follow labels of labels to their ends."""
    while True:
        further = labels[labels]
        if np.array_equal(further, labels):
            return labels
        labels = further
