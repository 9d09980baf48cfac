"""Benchmarks of speed, which alternate between contenders and report ratios first; and comparisons over many runs."""
