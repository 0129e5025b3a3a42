"""The names of the files that one step leaves and others read.

What is in them: core/sample.py, which has a typed reader for each table.

A step sees files under these names, whatever they are called in the run's folder.
"""

from __future__ import annotations

OWN_MODULE = "vlmill_filter_"
"""How the names of modules begin that are made of code of a user: filters, signals, sources."""
SAMPLES_FILE = "samples.parquet"
"""The samples of a partition. Its row numbers name them in every other table. Read with `read_samples`."""
RAW_SAMPLES_FILE = "raw.samples.parquet"
"""The samples as they were read, where models wrote texts that are in SAMPLES_FILE."""
IMAGES_FILE = "images.parquet"
"""The images of a partition, with the bytes as they came. Read with `read_images`."""
SUPPLEMENT_FILE = "supplement.parquet"
"""The images that retries brought; each stands for the row of its number in IMAGES_FILE. `read_images` merges the
two."""
SKIPPED_IMAGES_FILE = "skipped_images.parquet"
"""The images of a partition that are not fetched, since filters drop all that shows them."""
REFUSED_FILE = "refused.parquet"
"""The rows of an input file of which no sample was made. Read with `read_refused`."""
UNREAD_FILE = "unread.json"
"""The keys of rows that their source does not read."""
FETCHED_SUFFIX = ".fetched.parquet"
"""Of a table of images that were fetched for rows which another partition has now."""
HOSTS_FILE = "hosts.parquet"
"""The hosts of the addresses of a partition's images."""
HOST_COUNTS_FILE = "host_counts.parquet"
"""How the hosts of a partition's images answered. What was fetched before it was written lacks it."""
HOST_FILES_SUFFIX = ".host_files.parquet"
"""Of the table of what hosts of a bucket say of the use of their files."""
CUTS_FILE = "cuts.json"
"""Where input files are cut: for each a list of [start, stop, bytes]."""
BAD_FILES = "bad_files.json"
"""What is wrong with input files that their source skips."""
IMAGE_STATS_FILE = "image_stats.parquet"
"""What one decode found out about every image. Read with `read_image_stats`."""
MATCHES_FILE = "found.json"
"""What of a partition stands on the list of takedowns."""
REGIONS_FILE = "boxes.parquet"
"""Where coordinates stand in the texts of a partition, and what they mark."""
OUTLINE_FILE = "outline.parquet"
"""What dedupe needs of every sample."""
VERDICTS_SUFFIX = ".verdicts.parquet"
SCORES_SUFFIX = ".scores.parquet"
"""Of the table that a signal leaves: what its model says of each image or text. Read with `read_scores`."""
EMBEDDINGS_SUFFIX = ".embeddings.parquet"
"""Of the table that a signal leaves whose values are vectors. Read with `read_scores`."""
ANSWERS_SUFFIX = ".answers.parquet"
"""Of the table of what a server answered. Read with `read_answers`."""
JOURNAL_SUFFIX = ".journal.jsonl"
"""Of the answers of a partition that is being asked about. It goes when they are committed."""
SAMPLED_SUFFIX = ".sampled.npy"
"""Of the vectors of a partition that centroids are trained on."""
CENTROIDS_SUFFIX = ".centroids.npy"
"""Of the centroids of a signal's clusters."""
ASSIGNED_SUFFIX = ".assigned.parquet"
"""Of the table of a partition that says which cluster each vector is in."""
SIZES_SUFFIX = ".sizes.npy"
"""Of the numbers of vectors of a run in each cluster."""
DETECTIONS_SUFFIX = ".detections.parquet"
"""Of the table that a signal leaves that finds things in images: a row each."""
MODEL_SUFFIX = ".model.json"
"""Of the file that says which model gave a signal's values, and on what device."""
QUANTILES_FILE = "quantiles.json"
"""The values at the quantiles that thresholds ask for."""
INDEX_SUFFIX = ".index.parquet"
"""Of the table beside a shard: where each sample lies in it."""
LINEAGE_SUFFIX = ".lineage.parquet"
"""Of the table beside a shard: which row of which file each sample was."""
LENGTHS_SUFFIX = ".lengths.parquet"
"""Of the table beside a shard: the tokens of each sample."""
SIGNALS_SUFFIX = ".signals.parquet"
"""Of the table beside a shard: each sample's signals, as a mixture's `where` sees them."""


def name_input(place: int) -> str:
    """The name that a step knows an input file by: its place among those of the task, from 0."""
    return f"input-{place}"


def name_verdicts(filter_: str) -> str:
    """The file with the verdicts of a filter, or of another step that drops things. Read with `read_verdicts`."""
    return f"{filter_}{VERDICTS_SUFFIX}"


def name_resolved_verdicts(partition: str) -> str:
    """The name of the verdicts on a partition, `<source>/<partition>`, of the step that resolves duplicates.

    The step leaves those of all partitions.
    """
    return f"{partition.replace('/', '.')}.{name_verdicts('dedupe')}"


def name_scores(signal: str) -> str:
    """The file with the values of a signal. Read with `read_scores`."""
    return f"{signal}{SCORES_SUFFIX}"


def name_embeddings(signal: str) -> str:
    """The file with the vectors of a signal. Read with `read_scores`."""
    return f"{signal}{EMBEDDINGS_SUFFIX}"


def name_answers(signal: str) -> str:
    """The file with a server's answers. Read with `read_answers`."""
    return f"{signal}{ANSWERS_SUFFIX}"


def name_detections(signal: str) -> str:
    """The file with what a signal found in images."""
    return f"{signal}{DETECTIONS_SUFFIX}"
