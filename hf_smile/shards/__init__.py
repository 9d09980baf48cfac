"""Data sets that are too large for one file: Parquet shards, written, read and streamed."""
