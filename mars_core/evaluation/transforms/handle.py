"""3. The handle of somebody in front of the prompt."""

from mars_core.evaluation.transforms.transform import TextTransform, name_for


class Handle(TextTransform):
    """A prompt that is addressed to somebody, as in social media, asks what it asked."""

    changes = "prompt"

    def change(self, text: str) -> str:
        """See `TextTransform.change`."""
        return f"@{name_for(text)} {text}"
