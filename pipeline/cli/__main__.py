"""`python -m pipeline.cli`: the command without an installed script."""

from pipeline.cli import main

main()
