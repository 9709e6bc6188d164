"""What a person can mend: its message names the file, row, field or key, what was found, and what to do."""


class MarsError(Exception):
    """Base of all errors that are told without a stack trace."""


class ModelError(MarsError, RuntimeError):
    """The model cannot be loaded or gives no usable rewards; the message says which and why."""
