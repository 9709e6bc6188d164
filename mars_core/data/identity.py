"""Which texts mean the same, however they are written: what pairs and prompts of deliveries are known by.

A text is reduced to its letters and digits, without case and in one form of Unicode (NFKC): another space, a
full stop or a fancy letter make no other text. What compares or computes is kept, for it is no punctuation:
+, < , > and = everywhere but at the ends, and -, *, / and % before a digit, so that 3 - 4 is not 3 + 4.
"""

import hashlib
import re
import unicodedata

VERSION = 2
"""Version 1 was the digest of the texts as they are."""

_ENDS = "+<>="
_IDLE = re.compile(r"[-*/%](?!\s*\d)|[^\w\s+<>=*/%-]|[\s_]")


def meaning(text: str) -> str:
    """What is left of a text that has letters or digits; of any other, the text in one form of Unicode."""
    same = unicodedata.normalize("NFKC", text).casefold()
    return _IDLE.sub("", same).strip(_ENDS) or same.strip()


def pair_identity(prompt: str, chosen: str, rejected: str) -> str:
    """What a pair is known by: a digest of what its texts mean."""
    return pair_identities(prompt, chosen, rejected)[0]


def pair_identities(prompt: str, chosen: str, rejected: str) -> tuple[str, str]:
    """The identity of a pair, and that of the same pair with its responses exchanged."""
    asked, better, worse = map(meaning, (prompt, chosen, rejected))
    return _digest(asked, better, worse), _digest(asked, worse, better)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="replace")).hexdigest()[:16]


def prompt_place(prompt: str, salt: str) -> float:
    """Where a prompt falls in [0, 1), by what it means and a secret."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{meaning(prompt)}".encode()).digest()[:6]) / 2**48
