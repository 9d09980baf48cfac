"""Settings, the Trainer, and the output folder of a run."""
