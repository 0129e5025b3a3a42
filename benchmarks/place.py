"""Rectangles drawn in pictures and found again in what models see of them, under every image policy.

    python -m benchmarks.place --sizes 1000

Prints per policy how far an edge was from where `place` says, at worst. A test draws a few
(tests/pipeline/test_place.py).
"""

from __future__ import annotations

import argparse
import math
import random
import time

from tests.helpers.drawing import DRAWN, choose_box, draw, lay_out_one
from tests.helpers.processors import sizes
from vlmill.pipeline.images import Policy, Unrenderable


def measure_policy(name: str, policy: Policy, number: int) -> str:
    """Draw a rectangle in a picture of each size; a line that says how it went."""
    generator, began = random.Random(5), time.process_time()
    drawn, cut, refused, edges, worst = 0, 0, 0, 0, (0.0, "")
    for size in sizes(number, seed=4):
        try:
            layout = lay_out_one(policy, name, size)
        except Unrenderable:
            refused += 1
            continue
        drawn += 1
        for drawing in draw(policy, layout, choose_box(generator, policy, layout)):
            cut += drawing.seen is None
            edges += sum(not math.isnan(place) for place in drawing.placed) if drawing.seen else 0
            worst = max(worst, (drawing.distance, f"{size[0]} x {size[1]} px, {drawing.box}"))
    seconds = time.process_time() - began
    return (
        f"{name}: {drawn} sizes, {refused} without an answer, {cut} cut away, {edges} edges measured, worst "
        f"{worst[0]:.2f} px ({worst[1]}), {seconds:.0f} CPU seconds"
    )


def main() -> None:
    """Draw under every policy, or under one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="of policies; without one, every policy")
    parser.add_argument("--sizes", type=int, default=1000)
    given = parser.parse_args()
    for name, policy in DRAWN.items():
        if not given.name or name in given.name:
            print(measure_policy(name, policy, given.sizes), flush=True)


if __name__ == "__main__":
    main()
