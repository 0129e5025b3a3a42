"""Image policies against transformers' image processors: every pixel, every token, and the time beside each other.

    python -m benchmarks.policies [--sizes 1000] [--only llava_next]

Times are of one process on pictures in memory, from RGB to encoder inputs, in CPU seconds; theirs leave normalising out.
"""

from __future__ import annotations

import argparse
import time

from pipeline.images import Unrenderable
from tests.processors import Case, cases, inputs, picture, same, sizes


def compare(name: str, case: Case, number: int) -> str:
    """One line of the table."""
    pixels = tokens = refused = 0
    ours = theirs = 0.0
    for seed, size in enumerate(sizes(number)):
        image = picture(size, seed)
        start = time.process_time()
        try:
            (layout,) = case.policy.layout([size])
        except Unrenderable:
            refused += 1
            continue
        made = case.ours(image, layout)
        middle = time.process_time()
        processed = case.processed(image)
        theirs += time.process_time() - middle
        ours += middle - start
        pixels += not same(made, inputs(processed))
        tokens += layout.tokens != case.tokens(size)
    done = number - refused
    return (
        f"{name:16} {done:5} sizes  {pixels:3} with other pixels  {tokens:3} with other tokens  {refused:3} refused  "
        f"ours {1000 * ours / done:6.2f} ms  theirs {1000 * theirs / done:6.2f} ms"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=1000)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    for name, case in cases().items():
        if arguments.only in {None, name}:
            print(compare(name, case, arguments.sizes), flush=True)


if __name__ == "__main__":
    main()
