"""Asks the hosts of a run what they say of the use of their files, before anything is fetched from them.

A barrier within `curate`, for sources that name images by address: partitions are read and their hosts listed, then
each bucket of hosts is asked, so that no host is asked twice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlmill.pipeline.engine.chain import Chain, ChainStep
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.fetch.hosts import BUCKETS, AskHosts, ListHosts

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build

FOLDER = "steps/hosts/asked"


def ask_hosts(run: Build) -> tuple[File, ...]:
    """What hosts said, a table for each bucket; none where no source asks for it."""
    steps = {name: step for name in sorted(run.recipe.sources) if (step := list_hosts_step(run, name))}
    if not steps:
        return ()
    listing = [run.reading_chain(partition, step) for name, step in steps.items() for partition in run.partitions[name]]
    for _ in run.run_chains("curate: hosts", listing):
        pass
    listed = [receipt for name in steps for receipt in run.manifest(f"steps/{name}/hosts")]
    if not sum(receipt.counts["hosts"]["kept"] for receipt in listed):
        return ()
    named = tuple(
        replace(file, name=f"{name}/{receipt.partition}/{file.name}")
        for name in steps
        for receipt in run.manifest(f"steps/{name}/hosts")
        for file in receipt.files
    )
    allowed = sorted({host for name in steps for host in run.fetch_step(name).allow_hosts})
    fetch = replace(run.recipe.fetch, allow_hosts=tuple(allowed))
    chains = [
        Chain(f"{bucket:05d}", (ChainStep(FOLDER, AskHosts(bucket, fetch)),), files=named) for bucket in range(BUCKETS)
    ]
    found = [receipts[-1][1] for _, receipts in run.run_chains("curate: ask hosts", chains)]
    return tuple(file for receipt in sorted(found, key=lambda receipt: receipt.partition) for file in receipt.files)


def list_hosts_step(run: Build, source: str) -> ChainStep | None:
    """The step that names the hosts of a source's addresses; None where none is asked."""
    if not run.recipe.source(source).fetches or not (fetch := run.fetch_step(source)).honour_hosts:
        return None
    return ChainStep(f"steps/{source}/hosts", ListHosts(tuple(sorted(fetch.mirrors))))


def adopt_hosts(run: Build) -> tuple[File, ...]:
    """The same as manifests have it: nobody is asked, and nothing is fetched."""
    listed = [f"steps/{name}/hosts" for name in run.recipe.sources]
    there = [folder for folder in (FOLDER, *listed) if (run.root / folder / "manifest.json").exists()]
    run.folders |= {*there}
    return tuple(file for receipt in run.manifest(FOLDER) for file in receipt.files) if FOLDER in there else ()
