"""What a child process gets of this one's environment, where it needs no secrets."""

import os
import re
from collections.abc import Container

_SECRET = re.compile(r"PASSW|SECRET|TOKEN(?!IZ)|CREDENTIAL|AUTH|KEY|WEBHOOK|DSN", re.IGNORECASE)
_ADDRESS_WITH_ONE = re.compile(r"://[^/\s]*@")


def without_secrets(but: Container[str] = ()) -> dict[str, str]:
    """The environment without variables whose names or values say that they hold a secret.

    Args:
        but: names of those that the child needs.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name in but or not (_SECRET.search(name) or _ADDRESS_WITH_ONE.search(value))
    }
