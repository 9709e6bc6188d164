"""Where the sentences of a text end, and which parts of it are not prose."""

import re

_PROTECTED = re.compile(
    r"""
      ```.*?(?:```|\Z) | ~~~.*?(?:~~~|\Z) | `[^`\n]+`           # code blocks and spans
    | \$\$.+?\$\$ | \$[^$\n]+\$ | \\\(.+?\\\) | \\\[.+?\\\]      # formulas
    | (?:https?://|www\.)\S+ | [^\s@]{1,80}@[^\s@]+\.\w+         # links and addresses
    | <[^<>\n]{1,300}>                                           # markup
    | "[^"\n]{1,500}" | “[^”]{1,500}” | «[^»]{1,500}»            # quotations
    | ^(?:[ ]{4}|\t)[^\n]*                                       # indented code
    | ^[^\n]{0,160}(?:[{};]|->|=>|[)\]]:)[ \t]*$                 # lines that end like code
    | ^[^\n]{0,60}[ ][=!<>]?=[ ][^\n]{0,60}$                     # assignments and equations
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_END = re.compile(r"(?:[.!?…]+[\"”’')\]*_]*(?=\s)|\n)\s*")
_NO_END = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|No|Vol|Fig|approx|[A-Z])|(?:^|\n)\s*\d{1,3})\.\s*$"
)


def masked(text: str) -> str:
    """The text with code, formulas, links, markup and quotations as NULs: same length, same positions."""
    return _PROTECTED.sub(lambda match: "\0" * len(match[0]), text)


def sentences(text: str) -> list[str]:
    """Cut a text into sentences and lines, each with the space behind it; joined they are the text."""
    prose = masked(text)
    pieces, start = [], 0
    for end in _END.finditer(prose):
        if _NO_END.search(prose, max(start, end.end() - 12), end.end()):
            continue
        pieces.append(text[start : end.end()])
        start = end.end()
    return [*pieces, text[start:]] if start < len(text) else pieces
