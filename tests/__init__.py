"""Tests of vlmill. Several run at once: libraries for matrices get one thread each, here and in what tests start.

With more, threads of one process wait for each other in loops while those of another have the cores.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported, which is later
