"""What was fetched before for rows that another partition has now: such an address is not asked again.

Part of fetch. A file behind small files changes the rows of the partition that these share, and other bounds of
partitions those of all. The tables that were left for the rows as they were are side inputs of `Fetch`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import read_rows
from vlmill.pipeline.fetch.address import FetchFailed, parse_address
from vlmill.pipeline.fetch.process import FetchOutcome

NOT_ASKED = frozenset({Reason.OPT_OUT_LIST, Reason.NOT_FETCHED, Reason.ROBOTS_TXT, Reason.ROBOTS_UNKNOWN})
"""Reasons of addresses that were not asked for, which lists, filters and hosts of today decide on."""


def read_earlier_outcomes(tables: Iterable[Path], wanted: Collection[str], scratch: Path) -> dict[str, FetchOutcome]:
    """The outcomes that addresses had, bytes before reasons; their bytes are copied to a file of the scratch folder.

    None of those that were not asked for.

    Args:
        tables: of images, or of what retries brought of them; one row group is in memory at a time.
        wanted: addresses in the spelling of `parse_address`.
        scratch: a folder that is there as long as the outcomes are.
    """
    found, bodies = dict[str, FetchOutcome](), scratch / "earlier"
    with bodies.open("wb") as written:
        for table in tables:
            addresses = (spell_address(row["url"]) for row in read_rows(table, ["url"]))
            if not any(address in wanted for address in addresses):
                continue
            for row in read_rows(table, batch=32):
                address, data = spell_address(row["url"]), row["bytes"]
                before = found.get(address)
                if address not in wanted or (before and before.file):
                    continue
                if data is not None:
                    place = written.tell()
                    found[address] = FetchOutcome(None, None, row["media_type"], bodies, place, written.write(data))
                elif row["reason"] not in {None, *NOT_ASKED} and before is None:
                    found[address] = FetchOutcome(Reason(row["reason"]), row["detail"])
    return found


def spell_address(url: str | None) -> str:
    """An address as it is asked for; empty where there is none."""
    try:
        return parse_address(url).url if url else ""
    except FetchFailed:
        return ""
