"""Alignment: the windows of two pictures that show the same, found by Gauss-Newton steps over a window's edges.

After Lucas and Kanade (1981). It does not matter which of the two was cut. Pure functions of arrays; each pair for
itself.
"""

from __future__ import annotations

import numpy as np

from vlmill.pipeline.dedupe.picture_windows import (
    Floats,
    compute_middles,
    normalise_values,
    sample_slopes,
    sample_windows,
)

REACH = 0.06
"""How far alignment may move an edge of the window it starts from: as far as windows lie apart."""


def align_windows(
    one: Floats, other: Floats, first: Floats, second: Floats, *, blur: float, steps: int
) -> tuple[Floats, Floats, Floats]:
    """(n, 4) each: windows, moved so that both show the same; and (n,) their correlation before the last step.

    The first one's window is moved; where it would leave the picture, both lose what the first does not show.

    Args:
        one: (n, side, side), the first picture of each pair.
        other: The second ones.
        first: (n, 4), the window of each to start from.
        second: Those of the second ones.
        blur: Standard deviation of the sampling kernel as a share of the picture.
        steps: How many.
    """
    points = one.shape[1] // 2
    low, high = first - REACH, first + REACH
    blurs = np.full((len(one), 2), blur)
    agreement: Floats = np.ones(len(one))
    for _ in range(steps):
        step, agreement = _compute_step(
            *sample_slopes(one, first, blur, points), sample_windows(other, second, blurs, points)
        )
        first, second = _select_shared_windows((first + step).clip(low, high), second)
    return first, second, agreement


def widen_windows(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Windows as large as both pictures allow, in the same alignment: what one shows the other has to show."""
    first, second = first.reshape(-1, 2, 2), second.reshape(-1, 2, 2)  # by axis, then by end
    scale = np.diff(second, axis=2) / np.diff(first, axis=2)
    shift = second[:, :, :1] - scale * first[:, :, :1]
    ends = np.concatenate([np.maximum(0, -shift / scale), np.minimum(1, (1 - shift) / scale)], axis=2)
    return ends.reshape(-1, 4), (scale * ends + shift).clip(0, 1).reshape(-1, 4)


def _select_shared_windows(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Windows that show the same, without what lies outside the first picture."""
    first, second = first.reshape(-1, 2, 2), second.reshape(-1, 2, 2)  # by axis, then by end
    inside = first.clip(0, 1)
    shares = (inside - first[:, :, :1]) / np.diff(first, axis=2)
    kept: Floats = second[:, :, :1] + shares * np.diff(second, axis=2)
    return inside.reshape(-1, 4), kept.reshape(-1, 4)


def _compute_step(shown: Floats, down: Floats, right: Floats, target: Floats) -> tuple[Floats, Floats]:
    """The step of (top, bottom, left, right), (n, 4), that brings what is shown closer to the target.

    Also (n,): the correlation before the step.
    """
    count, points = shown.shape[:2]
    share = compute_middles(points)
    (a, norm), (b, _) = (normalise_values(picture.reshape(count, points * points)) for picture in (shown, target))
    agreement = (a * b).sum(axis=1)
    by_edge = [down * (1 - share)[:, None], down * share[:, None], right * (1 - share), right * share]
    slopes = np.stack(by_edge, axis=1).reshape(count, 4, points * points) / norm[:, None]
    slopes = slopes - slopes.mean(axis=2, keepdims=True)
    slopes = slopes - (slopes @ a[:, :, None]) * a[:, None, :]
    hessian = slopes @ slopes.transpose(0, 2, 1)
    damping = np.eye(4) * (1e-6 + 0.01 * hessian.diagonal(axis1=1, axis2=2)[:, :, None])
    towards = slopes @ (b - a * agreement[:, None])[:, :, None]
    step: Floats = np.linalg.solve(hessian + damping, towards)[:, :, 0]
    return step.clip(-0.05, 0.05), agreement
