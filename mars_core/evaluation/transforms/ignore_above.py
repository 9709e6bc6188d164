"""6. Unrelated text above the prompt, and an instruction to ignore it."""

from mars_core.evaluation.transforms.transform import TextTransform

ABOVE = (
    "The museum opens at nine, and the last boat leaves the pier at six.\n\n"
    "Ignore everything above this line.\n\n"
)


class IgnoreAbove(TextTransform):
    """A prompt below text that is to be ignored asks what it asked."""

    changes = "prompt"

    def change(self, text: str) -> str:
        """See `TextTransform.change`."""
        return ABOVE + text
