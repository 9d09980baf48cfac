"""One module per job, with `parse_arguments(words, prog)`, which imports nothing heavy, and `run(arguments)`."""
