"""Errors that the command line prints as one line, without a traceback."""


class MMEError(Exception):
    """A problem that the user can fix.

    The message names the file or field, says what is wrong, and how to fix it.
    """


class UsageError(MMEError):
    """Wrong arguments or configuration; the command exits with status 2."""


class VideoError(MMEError):
    """A video that cannot be used; the message is the reason in the ledger."""


class StoreError(MMEError):
    """A store that is missing, incomplete, damaged or made with another specification."""
