"""File formats that sources read: rows of Parquet, JSON, CSV, tars and documents, from any start."""
