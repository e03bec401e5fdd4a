"""Errors that are the user's to mend: entry points print them without a traceback and exit with code 2."""


class UserError(Exception):
    """A mistake in a command, a config or a file. The message names the key or path and the remedy."""
