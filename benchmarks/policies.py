"""Every pixel and token of an image policy beside transformers' processor, on as many sizes of images as asked for.

    python -m benchmarks.policies qwen2_5_vl

Tests compare a few; the policies and their processors are those of tests/helpers/processors.py.
"""

from __future__ import annotations

import argparse
import time

from tests.helpers.processors import cases, inputs, picture, same, sizes
from vlmill.pipeline.images import Unrenderable


def main() -> None:
    """Compare, and print how many sizes agreed."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=known, help="of a model whose processor is compared with")
    parser.add_argument("--sizes", type=int, default=1050)
    given = parser.parse_args()
    case, equal, refused, began = known[given.name], 0, 0, time.process_time()
    for seed, size in enumerate(sizes(given.sizes, seed=2)):
        try:
            (layout,) = case.policy.layout([size])
        except Unrenderable:
            refused += 1
            continue
        image = picture(size, seed)
        if same(case.ours(image, layout), inputs(case.processed(image))) and layout.tokens == case.tokens(size):
            equal += 1
        else:
            print(f"differs: {size[0]} x {size[1]} px")
    seconds = time.process_time() - began
    print(f"{given.name}: {equal} of {given.sizes} sizes equal, {refused} without an answer, {seconds:.0f} CPU seconds")


if __name__ == "__main__":
    main()
