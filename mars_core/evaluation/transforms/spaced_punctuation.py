"""2. Spaces around the punctuation of both responses."""

import re

from mars_core.evaluation.code_in_texts import has_code
from mars_core.evaluation.transforms.transform import TextTransform

_MARK = re.compile(r"(?<=[^\W_])([.,;:!?])(?=\s|$)")
"""A mark that ends a part of a sentence, and none within a number or an address."""


class SpacedPunctuation(TextTransform):
    """Words are told from punctuation by a space , as some tokenizers have it . Not in code."""

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        return None if has_code(text) else _MARK.sub(r" \1", text)
