"""How reports write numbers, and tables of them: shares as .652 [.609, .692], margins as −0.210."""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial

ABSENT = "–"


def share(value: float, sign: str = "-") -> str:
    """A number between −1 and 1, to three places; what is rounded to zero has no sign."""
    sign = "-" if abs(value) < 0.0005 else sign
    text = f"{value:{sign}z.3f}".replace("0.", ".", 1).replace("-", "−")
    return ABSENT if math.isnan(value) else text


signed = partial(share, sign="+")


def number(value: float) -> str:
    """A number of any size, to three places."""
    return ABSENT if math.isnan(value) else f"{value:z.3f}".replace("-", "−")


def small(value: float) -> str:
    """A number that may be far from 1, to three digits."""
    return ABSENT if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def count(value: float) -> str:
    """A whole number."""
    return ABSENT if math.isnan(value) else f"{value:,.0f}"


def joined(show: Callable[[float], str], sign: str, *values: float) -> str:
    """Several numbers with a sign between them."""
    return ABSENT if all(map(math.isnan, values)) else sign.join(map(show, values))


def summed(originals: float, synthetic: float) -> str:
    """Two counts as a sum; the second may not exist."""
    return count(originals) if math.isnan(synthetic) else f"{count(originals)} + {count(synthetic)}"


def interval(value: float, low: float, high: float, *, show: Callable[[float], str] = share) -> str:
    """A share, or another number, with its interval; the latter may not exist."""
    return show(value) if math.isnan(low) else f"{show(value)} [{show(low)}, {show(high)}]"


def p_value(value: float) -> str:
    """A p-value, which is never zero."""
    return "< .001" if value < 0.001 else share(value)


def probability(value: float) -> str:
    """The same in a sentence."""
    shown = p_value(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: str = "---:") -> str:
    """A Markdown table; its columns after the first are numbers, or with `align="---"` texts."""
    lines = [headers, ["---", *[align] * (len(headers) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def without_figures(page: str) -> str:
    """A Markdown page for a place that cannot show the files beside it."""
    return re.sub(r"^!\[[^]]*]\([^)]*\)\n*", "", page, flags=re.MULTILINE)
