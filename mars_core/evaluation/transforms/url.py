"""4. A URL behind the prompt."""

import string

from mars_core.evaluation.transforms.transform import TextTransform, drawn_from

LETTERS = 8
"""Letters and digits of its path."""


class Url(TextTransform):
    """A prompt with a link to nowhere behind it asks what it asked."""

    changes = "prompt"

    def change(self, text: str) -> str:
        """See `TextTransform.change`."""
        path = "".join(drawn_from(text).choices(string.ascii_letters + string.digits, k=LETTERS))
        return f"{text} https://example.org/{path}"
