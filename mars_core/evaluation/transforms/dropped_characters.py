"""11. Characters of both responses dropped."""

from random import Random

from mars_core.evaluation.transforms.transform import TextTransform, with_noise


def _dropped(word: str, random: Random) -> str:
    place = random.randrange(1, len(word) - 1)  # the first and the last letter stay
    return word[:place] + word[place + 1 :]


class DroppedCharacters(TextTransform):
    """A tenth of the words with a letter too few."""

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        return with_noise(text, _dropped)
