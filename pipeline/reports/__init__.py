"""What people ask of a run that is there: how far it is, the outcome of everything, where a thing came from, what another setting would do.

Reads manifests and tables, as far as they are; writes nothing into the folder. `pipeline/cli/` prints what these say,
`pipeline/page/` puts it on a page.
"""
