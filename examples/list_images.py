"""Lists images that a model rates too high, for the filter `opt_out` to drop.

Curation by a model of your own can look like this.

    vlmill build RECIPE --out run --until curate
    python examples/list_images.py run listed.txt 0.9
    vlmill build RECIPE --out run --accept-changes --set "filters.opt_out.sha256=[listed.txt]"

The recipe finds the list beside itself. `rate` stands for the model: put yours there. The list is part of the run: its
content is in the key of the verdicts, another threshold is another list, and no image is fetched again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageStat

import vlmill


def rate(picture: Image.Image) -> float:
    """How dark a picture is, from 0 for white to 1 for black."""
    return 1 - ImageStat.Stat(picture.convert("L")).mean[0] / 255


def list_images(run: vlmill.Run, most: float) -> list[str]:
    """The sha256 of all images of a run that are rated above `most`, each once, sorted."""
    return sorted({shown.sha256 for shown in run.pictures() if rate(shown.picture) > most})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python list_images.py RUN LIST MOST")
    found = list_images(vlmill.open_run(sys.argv[1]), float(sys.argv[3]))
    Path(sys.argv[2]).write_text("".join(f"{sha256}\n" for sha256 in found), encoding="utf-8")
    print(f"{len(found)} images are on {sys.argv[2]}")
