"""5. "and true is true", repeated behind the prompt."""

from mars_core.evaluation.transforms.transform import TextTransform

TAUTOLOGY = " and true is true"
TIMES = 5


class TrueIsTrue(TextTransform):
    """A tautology adds nothing to a prompt, however often it is said."""

    changes = "prompt"

    def change(self, text: str) -> str:
        """See `TextTransform.change`."""
        return text + TIMES * TAUTOLOGY
