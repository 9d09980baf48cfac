"""Evaluation of probabilities: metrics, confidence intervals, comparisons, plots and the report."""
