"""Data sets that are too large for one file: writing, reading and streaming Parquet shards."""
