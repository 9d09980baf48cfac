"""CSV files and images in, `datasets.DatasetDict` and `pixel_values` out."""
