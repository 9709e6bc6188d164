"""4. A URL behind the prompt."""

from mars_core.evaluation.transforms.transform import TextTransform, name_for


class Url(TextTransform):
    """A prompt with a link to nowhere behind it asks what it asked."""

    changes = "prompt"

    def change(self, text: str) -> str:
        """See `TextTransform.change`."""
        return f"{text} https://example.org/{name_for(text)}"
