"""A custom filter: drops samples that upstream rated as not safe for work.

vlmill build RECIPE --filter examples/filters/nsfw.py --set nsfw.signal=punsafe --set nsfw.most=0.5

It reads a rating that came with the data, such as LAION's `punsafe` (a CLIP classifier's probability), from the
sample's signals. It is no classifier: it sees no image, it is as good as the rating, and a sample without one is kept
and counted as undecided.

To rate images yourself, run a model of your choice over them once, outside of the build, and let the filter `opt_out`
apply what it found. What the filter needs is a list of sha256; examples/list_images.py writes one:

    for shown in vlmill.open_run("run").pictures():
        if model(shown.picture) > 0.9:
            print(shown.sha256, file=listed)

    filters:
      - opt_out: {sha256: [listed.txt]}

The list is part of the run: its content is in the key of the verdicts, another threshold is another list, and no image
is fetched or decoded again. What you should know of your model before you trust it: its errors on art, medicine, sport
and swimwear, and on skin of every colour.
"""

from dataclasses import dataclass

from vlmill import WHOLE_SAMPLE, Drop, Undecided


@dataclass(frozen=True)
class Nsfw:
    """Drops samples whose rating is above `most`; those without a rating are undecided."""

    name = "nsfw"
    signal: str = "punsafe"
    most: float = 0.5

    def decide(self, samples, image_stats):
        """Yield what has to go."""
        for row, sample in samples:
            rating = sample.signals.get(self.signal)
            if rating is None:
                yield Undecided(row, WHOLE_SAMPLE)
            elif rating > self.most:
                yield Drop(row, score=rating)
