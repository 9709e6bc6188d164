"""9. Letters of both responses replaced by ones that look the same."""

from random import Random

from mars_core.evaluation.transforms.transform import TextTransform, with_noise

CYRILLIC = str.maketrans("aceopxyABCEHKMOPTX", "асеорхуАВСЕНКМОРТХ")


def _lookalike(word: str, random: Random) -> str:
    return word.translate(CYRILLIC)


class Homoglyphs(TextTransform):
    """A tenth of the words in letters of another script, which no reader sees."""

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        return with_noise(text, _lookalike)
