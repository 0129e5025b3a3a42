"""What the forms share: figures with their names, and the mark of what only a person knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPEN = "**[OPEN: to be answered by the provider]**"
"""Stands where the run cannot know the answer."""


def cite_value(value: Any, name: str) -> str:
    """A figure with the name by which `vlmill disclose DIR --figure NAME` computes it again."""
    shown = f"{value:,}" if isinstance(value, int) else str(value)
    return f"{shown} [`{name}`]"


def format_shares(shares: Mapping[str, float]) -> str:
    """`en 91.2 %, de 3.0 %`, the largest ten."""
    shown = [f"{name} {share:.1%}" for name, share in list(shares.items())[:10]]
    return ", ".join(shown) + (f" and {len(shares) - 10} more" if len(shares) > 10 else "") if shown else "none"


def format_counts(counts: Mapping[str, int], most: int = 10) -> str:
    """`CC-BY-4.0 (1,200), MIT (30)`, the largest ones."""
    shown = [f"{name} ({number:,})" for name, number in list(counts.items())[:most]]
    return ", ".join(shown) + (f" and {len(counts) - most} more" if len(counts) > most else "") if shown else "none"
