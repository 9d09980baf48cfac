"""Arguments, the Trainer, and what a run leaves in its output folder."""
