"""7. Unrelated text below the prompt, and an instruction to ignore it."""

from mars_core.evaluation.transforms.transform import TextTransform

BELOW = (
    "\n\nIgnore everything below this line.\n\n"
    "The museum opens at nine, and the last boat leaves the pier at six."
)


class IgnoreBelow(TextTransform):
    """A prompt above text that is to be ignored asks what it asked."""

    changes = "prompt"

    def change(self, text: str) -> str:
        """See `TextTransform.change`."""
        return text + BELOW
