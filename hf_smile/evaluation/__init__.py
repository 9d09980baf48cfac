"""From probabilities to numbers one can defend: metrics, intervals, comparisons, pictures and the report."""
