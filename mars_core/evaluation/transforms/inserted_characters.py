"""12. Characters put into both responses."""

import string
from random import Random

from mars_core.evaluation.transforms.transform import TextTransform, with_noise


def _inserted(word: str, random: Random) -> str:
    place = random.randrange(1, len(word))
    return word[:place] + random.choice(string.ascii_lowercase) + word[place:]


class InsertedCharacters(TextTransform):
    """A tenth of the words with a letter too many."""

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        return with_noise(text, _inserted)
