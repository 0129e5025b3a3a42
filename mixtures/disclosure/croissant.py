"""The run as Croissant 1.1 (http://mlcommons.org/croissant/1.1): files, columns, licences and where the data came from.

Lineage is in terms of PROV-O, as version 1.1 has it: sources are `prov:wasDerivedFrom`, steps `prov:wasGeneratedBy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmill.mixtures.disclosure.facts import RunFacts, SourceFacts
from vlmill.pipeline.core.names import LINEAGE_SUFFIX
from vlmill.pipeline.recipe.mapping import LOCK

VERSION = "http://mlcommons.org/croissant/1.1"
_TERMS = (
    *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes"),
    *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated"),
    *("replace", "samplingRate", "separator", "source", "subField", "transform", "equivalentProperty"),
)
_JSON = {name: {"@id": f"cr:{name}", "@type": "@json"} for name in ("data", "examples")}
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **_JSON,
    **{name: f"cr:{name}" for name in _TERMS},
}
COLUMNS = {"id": "a sample's id: source, file and row", "url": "the address of its document", "licence": "its licence"}
"""Columns of the lineage beside every shard that are described."""


def describe_dataset(facts: RunFacts, policies: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The JSON-LD.

    Args:
        facts: Of the run.
        policies: Source -> the image policies that it has shards of.
    """
    licences = sorted({one.licence for one in facts.sources if one.licence})
    last = facts.figures["period"]["last"]
    sets = [(one, policy) for one in facts.sources for policy in policies[one.name]]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": facts.name,
        "description": _describe_size(facts),
        "url": f"urn:vlmill:{facts.name}",
        "version": "1.0.0",
        **({"datePublished": last} if last else {}),
        "license": licences or ["unknown"],
        "citeAs": "; ".join(one.citation for one in facts.sources if one.citation) or f"{facts.name}, made by vlmill",
        "creator": {"@type": "sc:Organization", "name": "OPEN: the provider"},
        "isLiveDataset": False,
        "prov:wasDerivedFrom": [_describe_source(one) for one in facts.sources],
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "name": f"vlmill build {LOCK}",
            "description": _list_steps(facts),
        },
        "distribution": [_describe_files(one, policy) for one, policy in sets],
        "recordSet": [_describe_records(one, policy) for one, policy in sets],
    }


def _describe_size(facts: RunFacts) -> str:
    total = facts.figures["total"]
    return (
        f"{total['samples']:,} samples with {total['pictures']:,} different images and {total['characters']:,} "
        f"characters of text, from {len(facts.sources)} sources, as WebDataset shards."
    )


def _list_steps(facts: RunFacts) -> str:
    bounds = ", ".join(facts.signals) or "none"
    return f"Filters: {', '.join(facts.filters) or 'none'}. Values of models with bounds: {bounds}."


def _describe_source(one: SourceFacts) -> dict[str, Any]:
    return {
        "@type": ["sc:Dataset", "prov:Entity"],
        "name": one.name,
        "license": one.licence or "unknown",
        **({"url": one.homepage} if one.homepage else {}),
        **({"identifier": one.repository} if one.repository else {}),
        **({"citation": one.citation} if one.citation else {}),
    }


def _describe_files(one: SourceFacts, policy: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{one.name}-{policy}",
        "name": f"{one.name}-{policy}",
        "description": f"What the {policy} shards of {one.name} hold, a row for each sample; the shards lie beside.",
        "encodingFormat": "application/x-parquet",
        "includes": f"shards/{one.name}/{policy}/*{LINEAGE_SUFFIX}",
    }


def _describe_records(one: SourceFacts, policy: str) -> dict[str, Any]:
    name = f"{one.name}-{policy}-samples"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"Samples of {one.name}, licence {one.licence or 'unknown'}.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column}",
                "name": column,
                "description": about,
                "dataType": "sc:Text",
                "source": {"fileSet": {"@id": f"{one.name}-{policy}"}, "extract": {"column": column}},
            }
            for column, about in COLUMNS.items()
        ],
    }
