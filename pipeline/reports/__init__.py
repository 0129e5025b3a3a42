"""Reports on an existing run: its progress, its funnel, where a thing came from, what another setting would do.

Reads manifests and tables, as far as they are; writes nothing into the folder. `pipeline/cli/` prints what these say,
`pipeline/page/` puts it on a page.
"""
