"""Errors a user can cause. Their message says what is wrong, where, and how to mend it."""


class SmileError(Exception):
    """Base of the errors a user can cause. `hf_smile.console.run_script` prints them without a traceback."""


class SmileDataError(SmileError):
    """Something is wrong with the annotations, the images or the predictions."""


class SmileModelError(SmileError):
    """Something is wrong with the backbone, the checkpoint or the settings."""
