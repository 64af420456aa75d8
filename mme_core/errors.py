"""Errors that the command line prints as one line, without a traceback."""


class MMEError(Exception):
    """Something the user can mend: the message names the file or field, what is wrong, the mend."""


class UsageError(MMEError):
    """Wrong arguments or configuration; the command exits with status 2."""


class VideoError(MMEError):
    """A video that cannot be used; the message is the reason in the ledger."""


class StoreError(MMEError):
    """A store that is missing, incomplete, damaged or made with another specification."""
