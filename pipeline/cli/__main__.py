"""`python -m vlmill.pipeline.cli`: the command without an installed script."""

from vlmill.pipeline.cli import main

main()
