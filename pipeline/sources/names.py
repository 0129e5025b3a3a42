"""Options of row shapes that name one column or several."""

from __future__ import annotations

Names = str | tuple[str, ...]


def list_names(columns: Names) -> tuple[str, ...]:
    """The names in an option; none where it is empty."""
    return ((columns,) if columns else ()) if isinstance(columns, str) else columns
