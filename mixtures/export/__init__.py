"""Exports: what leaves vlmill for other trainers, in their formats.

    records    where records come from: a stage's plan, its samples once, or the kept samples of a run
    record     the one form that all formats write: messages and pictures
    folder     the export's folder: shards that are done, resume, receipt
    FORMATS    one file per format: parquet, json_files (llava, messages), tars (webdataset)

To add a format: a class with what `ExportFormat` in base.py says, in a file of its own, and a line in FORMATS
(formats.py).
"""
