"""How many tokens a stage will hold: from its mixture and tokens by source, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmill.mixtures.config import MixtureSettings


def estimate_stage_tokens(mixture: MixtureSettings, tokens: Mapping[str, int | None]) -> int | None:
    """About how many tokens a plan holds; None where its sources do not tell. Pure.

    A budget in tokens is that; one in sequences is met by sequences that are full, so it is an upper bound; epochs are
    those of all that the entries name. `take`, `where` and held-out samples are left aside.

    Args:
        mixture: Of a stage.
        tokens: Of one pass over the shards of each source under the stage's policy.
    """
    if mixture.tokens is not None:
        return round(mixture.tokens)
    if mixture.sequences is not None:
        return round(mixture.sequences * mixture.sequence_length)
    total = 0.0
    for entry in mixture.resolved():
        known = tokens.get(entry.source)
        if known is None:
            return None
        total += 0 if mixture.keeps_whole(entry.source) else known * (entry.repeat or 1)
    return round(total * (mixture.epochs or 1))


def sum_by_entry(members: Mapping[str, Sequence[str]], tokens: Mapping[str, int | None]) -> dict[str, int | None]:
    """The tokens of what each entry names, from those of its sources; None where one of these is not known. Pure."""
    found = {name: [tokens.get(source) for source in sources] for name, sources in members.items()}
    return {name: None if None in each else sum(filter(None, each)) for name, each in found.items()}
