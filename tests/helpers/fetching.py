"""What tests of fetching do: write a table of images, and run a step over it."""

from dataclasses import replace

from vlmill.pipeline.core.names import HOST_COUNTS_FILE
from vlmill.pipeline.core.sample import IMAGES, read_rows, write_rows
from vlmill.pipeline.fetch import Fetch


def quick(web, **changes):
    """A fetch step that waits for a server no longer than a test should."""
    return replace(
        Fetch(allow_hosts=(web.host,), timeout_s=2, deadline_s=5, retries=0, threads=8, max_bytes=1 << 16),
        **changes,
    )


def images(path, *rows):
    """An images.parquet of urls, or of what else a row holds."""
    empty = dict.fromkeys(IMAGES.names)
    given = ({"url": row} if isinstance(row, str) else row for row in rows)
    write_rows(path, IMAGES, ({**empty, **row, "image": image} for image, row in enumerate(given)))
    return path


def run(step, tmp_path, *rows, **more):
    """The rows and books that a step makes of `rows`, and the folder that it leaves."""
    folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    counts = step.run({"images.parquet": images(tmp_path / "images.parquet", *rows), **more}, folder)
    left, *others = sorted(folder.iterdir(), key=lambda path: path.name == HOST_COUNTS_FILE)  # and no scratch
    assert [path.name for path in others] == ([HOST_COUNTS_FILE] if isinstance(step, Fetch) else [])
    assert all(count.balanced() for count in counts.values())
    return list(read_rows(left)), counts, left
