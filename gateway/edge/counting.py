"""How many tokens a request made, delivered and is billed for, and how well we know it.

Pure arithmetic over what the tap saw and the transport kept. The rules, in order of trust:

    upstream    the answer is whole and the backend's own count is plausible: generated = delivered = that count
    continuous  interrupted: the running usage at the last event that left
    counted     interrupted, or no usable count: one event is exactly one token at this backend
    estimated   else: events times the ratio learned for the backend, kept within [E, tokens_per_event_max x E]

A claim that is missing, contradictory or implausible is flagged and never raises what is delivered or billed.
Delivered never exceeds generated; billed equals delivered on every outcome.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pricing.export import Usage


class Progress(NamedTuple):
    """A point in a stream: content events up to it, and the running usage there if the backend reports one."""

    events: int = 0
    tokens: int | None = None


class EventRatio(NamedTuple):
    """Tokens per content event at a backend: what was learned and the most that is possible."""

    learned: float
    most: int

    @property
    def exact(self) -> bool:
        return self.most == 1

    def tokens(self, events: int) -> int:
        """The tokens that `events` content events stand for, within what is possible."""
        return min(max(events, round(events * self.learned)), events * self.most)


class Counts(NamedTuple):
    """What goes into the row. `usage.output_tokens` is generated."""

    usage: Usage
    delivered: int
    billed: int
    source: str
    flags: tuple[str, ...]


NOTHING = Counts(Usage(0), 0, 0, "counted", ())


class InputClaim(NamedTuple):
    """Input as the backend told it; None where it did not. Its parts are not more than the whole."""

    tokens: int | None = None
    cached: int | None = None
    cache_write: int | None = None


def count_whole(
    claimed: int | None,
    *,
    reasoning: int | None,
    plausible: bool,
    events: int,
    ratio: EventRatio,
    claim: InputClaim,
    input_estimate: int,
    flags: Iterable[str] = (),
) -> Counts:
    """A streamed answer that ended whole, all of it forwarded."""
    notes = list(flags)
    if claimed is not None and plausible:
        return count_known(claimed, "upstream", reasoning, claim, input_estimate, notes)
    if claimed is not None:
        notes.append("usage_implausible")
    source = "counted" if ratio.exact else "estimated"
    return count_known(ratio.tokens(events), source, None, claim, input_estimate, notes)


def count_interrupted(
    *,
    generated: Progress,
    delivered: Progress,
    ratio: EventRatio,
    claim: InputClaim,
    input_estimate: int,
    flags: Iterable[str] = (),
) -> Counts:
    """A streamed answer that ended early, on either side."""
    notes = list(flags)
    made, made_source = _progress(generated, ratio, notes)
    sent, sent_source = _progress(delivered, ratio, notes)
    source = max(made_source, sent_source, key=_TRUST.index)
    return _counts(max(made, sent), sent, source, None, claim, input_estimate, notes)


def count_known(
    output: int,
    source: str,
    reasoning: int | None,
    claim: InputClaim,
    input_estimate: int,
    flags: Iterable[str],
) -> Counts:
    """A whole answer of so many tokens: generated, delivered and billed alike."""
    return _counts(output, output, source, reasoning, claim, input_estimate, list(flags))


_TRUST = ("continuous", "counted", "estimated")


def _progress(at: Progress, ratio: EventRatio, notes: list[str]) -> tuple[int, str]:
    if at.events == 0:
        return 0, "continuous" if at.tokens is not None else "counted"
    if at.tokens is not None:
        if at.events <= at.tokens <= at.events * ratio.most:
            return at.tokens, "continuous"
        if "usage_implausible" not in notes:
            notes.append("usage_implausible")
    return ratio.tokens(at.events), "counted" if ratio.exact else "estimated"


def _counts(
    generated: int,
    delivered: int,
    source: str,
    reasoning: int | None,
    claim: InputClaim,
    input_estimate: int,
    notes: list[str],
) -> Counts:
    cached = claim.cached or 0
    cache_write = claim.cache_write or 0
    if claim.tokens is None:
        notes.append("input_estimated")
        tokens, cached, cache_write = input_estimate, 0, 0
    else:
        tokens = claim.tokens
    usage = Usage(tokens, cached, cache_write, generated, min(reasoning or 0, generated))
    return Counts(usage, delivered, delivered, source, tuple(dict.fromkeys(notes)))
