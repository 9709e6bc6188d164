"""3. The handle of somebody in front of the prompt."""

import string

from mars_core.evaluation.transforms.transform import TextTransform, drawn_from

LETTERS = 8
"""Letters and digits of a handle."""


class Handle(TextTransform):
    """A prompt that is addressed to somebody, as in social media, asks what it asked."""

    changes = "prompt"

    def change(self, text: str) -> str:
        """See `TextTransform.change`."""
        name = "".join(drawn_from(text).choices(string.ascii_letters + string.digits, k=LETTERS))
        return f"@{name} {text}"
