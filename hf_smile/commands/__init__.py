"""One module a job: `parse_arguments(words, prog)`, which imports nothing heavy, and `run(arguments)`."""
