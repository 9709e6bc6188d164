"""14. Comments in the code of both responses."""

from mars_core.evaluation.code_in_texts import COMMENTS, code_of
from mars_core.evaluation.transforms.transform import TextTransform


class CodeComments(TextTransform):
    """Code between two comments does what it did; a comment further in might end up in a string."""

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        found = code_of(text)
        if found is None:
            return None
        mark = COMMENTS[found.language]
        return found.with_code(f"{mark} Here is the code.\n{found.code}\n{mark} That is all of it.")
