"""10. Neighbouring characters of both responses swapped."""

from random import Random

from mars_core.evaluation.transforms.transform import TextTransform, with_noise


def _swapped(word: str, random: Random) -> str:
    # the first and the last letter stay, and two equal ones are no change
    places = [place for place in range(1, len(word) - 2) if word[place] != word[place + 1]]
    if not places:
        return word
    place = random.choice(places)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


class SwappedCharacters(TextTransform):
    """A tenth of the words with two letters the wrong way round, as fast typing has them."""

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        return with_noise(text, _swapped)
