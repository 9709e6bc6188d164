"""1. Quotation marks around both responses."""

from mars_core.evaluation.transforms.transform import TextTransform


class Quotes(TextTransform):
    """A response in quotation marks says what it said; one that begins with them may be asked to."""

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        return None if text.startswith('"') else f'"{text}"'
