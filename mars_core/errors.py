"""Errors that a user can fix: a message names the file, row, field or key, what was found, and what to do."""


class MarsError(Exception):
    """Base of all errors that are shown without a stack trace."""


class ModelError(MarsError, RuntimeError):
    """The model cannot be loaded or gives no usable rewards; the message says which and why."""
