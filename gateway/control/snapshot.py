"""What the supervisor hands its workers: one configuration and its prices, whole.

The text of the validated configuration travels, not its parsed form: every process reads the same bytes with the same
code, so tables and prices get the same versions everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config import Settings, load_text
from gateway.control.channel import Message
from gateway.edge.metering import NOTHING_SPENT, Spent
from pricing.energy import PriceCurve


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A configuration in force: text, where relative paths start, fetched curves, and what budgets have used."""

    text: str
    directory: Path
    anchor: float
    curves: Mapping[str, PriceCurve] = field(default_factory=dict)
    spent: Spent = NOTHING_SPENT  # where budgets begin that were not there before

    def settings(self, environ: Mapping[str, str]) -> Settings:
        """Parse the text. Raises ConfigError if it is wrong."""
        return load_text(self.text, self.directory, environ, files=False)

    def to_message(self) -> Message:
        return {
            "text": self.text,
            "directory": str(self.directory),
            "anchor": self.anchor,
            "curves": {feed: _curve_out(curve) for feed, curve in self.curves.items()},
            "spent": self.spent.to_message(),
        }

    @classmethod
    def from_message(cls, message: Message) -> "Snapshot":
        curves = {feed: _curve_in(curve) for feed, curve in message["curves"].items()}
        spent = Spent.from_message(message["spent"])
        return cls(message["text"], Path(message["directory"]), message["anchor"], curves, spent)


_CURVE_FIELDS = ("zone", "currency", "resolution_s", "fetched_at", "stale_after_s")


def _curve_out(curve: PriceCurve) -> Message:
    return {"starts": curve.starts, "prices": curve.prices, **{name: getattr(curve, name) for name in _CURVE_FIELDS}}


def _curve_in(message: Message) -> PriceCurve:
    points = list(zip(message["starts"], message["prices"], strict=True))
    return PriceCurve.build(points, **{name: message[name] for name in _CURVE_FIELDS})
