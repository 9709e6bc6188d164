"""The format that the columns of a source say."""

from collections.abc import Sequence, Set

from pydantic import create_model

from mars_core.data.formats.format import FORMATS, Format, Made
from mars_core.data.source_rows import Row

OTHERS = [FORMATS.find(name) for name in FORMATS.names() if name != "by_columns"]
_CONFIGS = dict.fromkeys(other.Config for other in OTHERS)
KEYS = tuple(
    keys for keys in _CONFIGS if not any(keys in other.__mro__[1:] for other in _CONFIGS)
)  # a class that others derive from comes with them


class ByColumns(Format):
    """The one format of this package that recognises the columns; its keys are those of all."""

    Config = create_model(  # type: ignore[assignment]
        "Config", __base__=KEYS, __cls_kwargs__={"use_attribute_docstrings": False}
    )
    columns = "any of the above"

    @classmethod
    def recognises(cls, columns: Set[str], rows: Sequence[Row]) -> bool:
        """Whether one of the others does."""
        return any(other.recognises(columns, rows) for other in OTHERS)

    def at(self, columns: Set[str], rows: Sequence[Row]) -> Format:
        """The format that reads such a source."""
        found = [other for other in OTHERS if other.recognises(columns, rows)]
        if len(found) == 1:
            return found[0](self.config).at(columns, rows)
        listed = ", ".join(sorted(columns))
        if found:
            raise ValueError(
                f"the columns {listed} are read by several formats: name one in data.format, of "
                f"{', '.join(name_of(other) for other in found)}"
            )
        known = "\n".join(f"  {name_of(other)}: {other.columns}" for other in OTHERS)
        raise ValueError(
            f"no format reads the columns {listed}. Rename them to prompt (where there is one), chosen and "
            f"rejected, or to what one of these formats reads:\n{known}\nor name a class of your own in "
            "data.format (docs/extending.md)."
        )

    def used(self, columns: Set[str]) -> list[str]:
        """None: `at` gives the format that reads."""
        return []

    def pairs(self, rows: Sequence[Row]) -> Made:
        """The pairs of rows that are a source by themselves."""
        columns = set().union(*rows)
        return self.at(columns, rows).pairs(rows)


def name_of(plugin: type[Format]) -> str:
    """The name that `data.format` takes."""
    return plugin.__module__.rpartition(".")[2]
