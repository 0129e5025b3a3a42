"""A sample as the trainer sees it: segments of it in every planned stage, as the page of statistics draws them.

Imported when it is first asked for: that page's package draws plots as well, and takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmill.explore.facts import KEPT
from vlmill.mixtures.build import is_mixed
from vlmill.mixtures.page.gallery import make_card
from vlmill.mixtures.placement import find_sample, find_sequences
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.pipeline.chat.settings import find_format
from vlmill.train.settings import read_training_settings
from vlmill.train.trace import find_use

if TYPE_CHECKING:
    from vlmill.explore.state import Opened

SEGMENTS = 2
"""Of a stage, that are shown."""


def list_segments(opened: Opened, number: int) -> dict[str, Any]:
    """Segments of a sample in every planned stage, as cards of the page of statistics: as the trainer sees them.

    `seen` says how many segments of it each stage has, `absent` why a stage has none of a kept sample, `marks` are
    those of the chat format in a card's text.
    """
    run, cards, seen = opened.run, list[dict[str, Any]](), dict[str, int]()
    name = str(opened.reader.read_sample(number).id)
    source, partition, _ = opened.index.find_place(number)
    for stage in run.recipe.stages:
        if not is_mixed(run.folder, stage.name):
            continue
        mixture = PlannedMixture(run.folder, stage.name)
        tokenizer = load_tokenizer(mixture.tokenizer, mixture.chat)
        loss = read_training_settings(stage, run.recipe.scale).loss if stage.train else "answers"
        seen[stage.name] = 0
        for place in find_sample(mixture, name, f"shards/{source}/{stage.policy}/{partition}."):
            for sequence in find_sequences(mixture, *place):
                for at, segment in enumerate(mixture.sequence(sequence)):
                    if (segment.source, segment.shard, segment.row) == place:
                        seen[stage.name] += 1
                        if seen[stage.name] <= SEGMENTS:
                            cards.append(make_card(mixture, sequence, at, tokenizer, loss))
    kept = opened.index.outcomes[int(opened.index.column("outcome")[number])] == KEPT
    without = [stage for stage, segments in seen.items() if not segments and kept]
    absent = {stage: find_use(run.folder, stage, name).why for stage in without}
    marks = list(find_format(run.recipe.chat).specials)
    return {"cards": cards, "seen": seen, "absent": absent, "marks": marks}
