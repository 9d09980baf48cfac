"""`hf-smile bulk` as a file, for launchers."""

from hf_smile.commands.main import main

if __name__ == "__main__":
    main("bulk")
