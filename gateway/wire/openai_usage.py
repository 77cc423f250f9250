"""The usages of one stream: what each says beside the others, and beside the content it stands for.

A backend reports its output once at the end, or all the time. A running count is good for the event it came with and
for no later one; one that went backwards is good for nothing, and so are two final ones that differ. Single numbers are
judged in `openai_answer`, their size beside the events in `edge.counting`.
"""

from typing import Any

from gateway.wire.openai_answer import TOKENS_MAX

CONTRADICTORY = "usage_contradictory"  # a final one that differs from another, or is below the running count
DECREASING = "usage_decreasing"  # a running count below the one before it
DOUBLED = "usage_doubled"  # the same final usage twice
EARLY = "usage_early"  # content came after the last one
INPUT_CONTRADICTORY = "input_contradictory"  # two that differ in the input


class Usages:
    """What a stream's usages have said so far."""

    __slots__ = (
        "_believed",
        "_by_choice",
        "_choices",
        "_content_events",
        "_final",
        "_flags",
        "_per_choice",
        "_running",
        "finals",
        "last",
    )

    def __init__(self, choices: int) -> None:
        self.last: dict[str, Any] | None = None  # running or final
        self.finals = 0  # events that carry usage alone
        self._final: dict[str, Any] | None = None
        self._flags: tuple[str, ...] = ()
        self._content_events = 0  # up to the last one, its own among them
        self._running: int | None = None
        self._choices = choices
        self._by_choice: dict[int, int] | None = None if choices == 1 else {}
        self._per_choice = False
        self._believed = True  # running counts are

    def flags(self, content_events: int) -> tuple[str, ...]:
        """What is wrong with them, now that there were so many content events."""
        early = self.last is not None and content_events > self._content_events
        return (*self._flags, EARLY) if early else self._flags

    def take(self, usage: dict[str, Any], index: int | None, content_events: int, *, carries: bool) -> int | None:
        """Note the usage in an event of one choice, or of none, which is final. Returns the output of all choices up to
        and with that event; None if it is not known."""
        claimed = usage.get("completion_tokens")
        tokens: int | None = None
        if isinstance(claimed, int) and not isinstance(claimed, bool) and 0 <= claimed <= TOKENS_MAX:
            tokens = claimed
        if index is None:
            self._take_final(usage, tokens)
        self.last = usage
        self._content_events = content_events + carries
        if tokens is not None:
            self._running = tokens if index is None else self._run(index, tokens, carries=carries)
        elif carries:
            self.outrun()
        return self._running

    def outrun(self) -> None:
        """A content event without a count: what was said before it is out of date. Of several choices one is behind
        from here on, and their sum with it."""
        if self._running is not None:
            self._running = None
            self._believed = self._by_choice is None

    def _take_final(self, usage: dict[str, Any], tokens: int | None) -> None:
        self.finals += 1
        if self.finals > 1:
            self._flag(DOUBLED if usage == self._final else CONTRADICTORY)
        if tokens is not None and self._running is not None and tokens < self._running:
            self._flag(CONTRADICTORY)
        known, told = (self.last or {}).get("prompt_tokens"), usage.get("prompt_tokens")
        if known is not None and told is not None and known != told:
            self._flag(INPUT_CONTRADICTORY)
        self._final = usage

    def _run(self, index: int, tokens: int, *, carries: bool) -> int | None:
        """The running count of all choices. Some servers (vLLM, SGLang) count each choice by itself, others the sum.

        A sum grows with every content event, whichever choice it belongs to; a count that did not is a choice's own.
        """
        counts = self._by_choice
        before = self._running if counts is None else counts.get(index)
        if before is not None and tokens < before:
            self._flag(DECREASING)
            self._believed = False
        if not self._believed:
            return None
        if counts is None:
            return tokens
        others = max((count for each, count in counts.items() if each != index), default=-1)
        if carries and tokens <= others:
            self._per_choice = True
        if 0 <= index < self._choices:
            counts[index] = tokens
        return sum(counts.values()) if self._per_choice else max(tokens, others)

    def _flag(self, flag: str) -> None:
        if flag not in self._flags:
            self._flags = (*self._flags, flag)
