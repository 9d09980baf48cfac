"""`python -m hf_smile JOB ...` runs `hf-smile JOB ...`, for launchers: `accelerate launch -m hf_smile train ...`."""

from hf_smile.commands.main import main

main()
