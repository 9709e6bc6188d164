"""What a person can mend: its message names the file, row, field or key, what was found, and what to do."""


class MarsError(Exception):
    """Base of all errors that are told without a stack trace."""
