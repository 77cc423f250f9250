"""After a crash: every open without an end gets one, `recovered`, with the counts the board still has.

The log says which exports are open, the board what was counted for them. The two differ in three ways:

- on both: the row is settled from the board's opening (it is the latest) and its counts;
- only on the board: either the open was not durable yet, so nothing was sent, but attempts may have cost something: it
  is opened and ended now; or its end is durable and only the slot was not free yet: nothing to do;
- only in the log: the board was lost (power loss): it ends with 0 delivered and the flag `board_lost`.

Done before the log's next owner accepts anything, and again after a crash in the middle of it: an end that is durable
is not written twice. The board goes once all ends are durable.
"""

from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from gateway.ledger.board import Board, BoardEntry
from gateway.ledger.instants import MICROS, micros, parse_us
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import Opening
from gateway.ledger.resume import started_at
from gateway.ledger.segment import segment_numbers
from gateway.ledger.segmentfile import read_lines, read_record
from gateway.ledger.settlement import Ending, settle_row
from gateway.ledger.terms import Terms
from pricing.export import Usage
from pricing.units import MILLI, divide_half_even

BOARD_NAME = "board"

_CLOCK_MARGIN_US = 3600 * MICROS  # wall clocks are set
_MICROS_PER_MILLI = 1000
_END = b'{"export_id":"'  # how an end begins in the log, and nothing else does
_ID_CHARS = 36


def recover(writer: LogWriter, wall_s: float, *, flush_s_max: float = 30.0) -> int:
    """End what is open in the writer's log, now, and remove its board. Blocks; returns how many rows were written.

    Raises:
        LedgerUnavailable: not all of them are durable; the board is still there.
    """
    ended_at_us = micros(wall_s)
    path = writer.directory / BOARD_NAME
    live = _live(path)  # first those with an open record, then what is left of them
    recovered = 0
    for export_id, place in writer.found_open.items():
        opening, entry = _join(read_record(writer.directory, place), live.pop(export_id, None), export_id)
        writer.terminal(settle_row(opening, ending_of(opening, entry, ended_at_us)))
        recovered += 1
    for export_id in sorted(live.keys() - _ended(writer.directory, live)):
        opening, entry = live[export_id]
        writer.append(opening.first_entry(), refusable=False)
        writer.terminal(settle_row(opening, ending_of(opening, entry, ended_at_us)))
        recovered += 1
    writer.flush(flush_s_max)
    path.unlink(missing_ok=True)
    return recovered


def recover_log(ledger: Path, log: int, wall_s: float) -> int:
    """Recover a log that no worker has.

    Raises:
        LedgerBusy: some process has it after all.
        LedgerUnavailable: not all of it could be written.
    """
    writer = LogWriter(ledger / str(log), log, None)
    try:
        return recover(writer, wall_s)
    finally:
        writer.close()


def _live(path: Path) -> dict[str, tuple[Opening, BoardEntry]]:
    """The live slots of a board left behind. A slot that a power loss tore is as good as lost."""
    found: dict[str, tuple[Opening, BoardEntry]] = {}
    with suppress(FileNotFoundError, ValueError), closing(Board.open_readonly(path)) as board:
        for entry in board.entries():
            with suppress(ValueError):
                opening = Opening.from_bytes(entry.opening)
                if opening.export_id == entry.export_id:
                    found[entry.export_id] = opening, entry
    return found


def _join(
    record: Mapping[str, object] | None, found: tuple[Opening, BoardEntry] | None, export_id: str
) -> tuple[Opening, BoardEntry | None]:
    logged: Opening | None = None
    if record is not None:
        with suppress(ValueError):
            logged = Opening.from_record(record)
    if found is None:
        # A record that damage made unreadable still has to end; who it was for is not known any more.
        return logged or Opening(export_id, 0, Terms()), None
    opening, entry = found
    if logged is not None and len(logged.failed) == len(opening.failed):
        opening = opening._replace(failed=logged.failed)  # with all their names
    return opening, entry


def ending_of(opening: Opening, entry: BoardEntry | None, ended_at_us: int) -> Ending:
    """What a board slot says about the end of its request. Times on a monotonic clock died with the process."""
    flags: tuple[str, ...] = ()
    if entry is None:
        usage, flags = Usage(input_tokens=opening.input_estimate), ("input_estimated", "board_lost")
        return Ending("recovered", ended_at_us, usage=usage, count_flags=flags, failed=opening.failed, recovered=True)
    sent = _believed(opening, entry.delivered_events, entry.delivered_tokens)
    made = _believed(opening, entry.generated_events, entry.generated_tokens)
    if (sent, made) != (entry.delivered_tokens, entry.generated_tokens):
        flags = ("usage_implausible",)
    delivered, source = _tokens(opening, entry.delivered_events, sent)
    if not opening.terms.stream and entry.delivered_events:
        source = "estimated"  # as `count_plain` says
    generated = max(_tokens(opening, entry.generated_events, made)[0], delivered)
    if entry.input_tokens is None:
        flags += ("input_estimated",)
        usage = Usage(input_tokens=opening.input_estimate, output_tokens=generated)
    else:
        usage = Usage(entry.input_tokens, min(entry.cached_input_tokens, entry.input_tokens), output_tokens=generated)
    return Ending(
        "recovered",
        ended_at_us,
        status=entry.status,
        usage=usage,
        delivered_tokens=delivered,
        billed_output_tokens=delivered,
        count_source=source,
        count_flags=flags,
        bytes_from_client=entry.bytes_from_client,
        bytes_to_client=entry.bytes_to_client,
        bytes_to_backend=entry.bytes_to_backend,
        bytes_from_backend=entry.bytes_from_backend,
        ttft_ms=None if entry.ttft_us is None else divide_half_even(entry.ttft_us, _MICROS_PER_MILLI),
        failed=opening.failed,
        recovered=True,
    )


def _believed(opening: Opening, events: int, tokens: int | None) -> int | None:
    """The running usage at so many events of a stream, if it can be true. That of a plain answer was judged before."""
    if tokens is None or not opening.terms.stream or events <= tokens <= events * opening.terms.tokens_per_event_max:
        return tokens
    return None


def _tokens(opening: Opening, events: int, tokens: int | None) -> tuple[int, str]:
    """Tokens in so many content events, and where the number comes from."""
    if tokens is not None:
        return tokens, "continuous"
    if opening.terms.tokens_per_event_max == 1:
        return events, "counted"
    estimate = divide_half_even(events * opening.tokens_per_event_milli, MILLI)
    return min(max(estimate, events), events * opening.terms.tokens_per_event_max), "estimated"


def _ended(directory: Path, live: Mapping[str, tuple[Opening, BoardEntry]]) -> set[str]:
    """Which of these exports have an end in the log: looks back through the segments that may hold one."""
    ended: set[str] = set()
    oldest_us = min((opening.opened_at_us for opening, _ in live.values()), default=0)
    for segment in reversed(segment_numbers(directory) if live else []):
        for line in read_lines(directory, segment):
            if line.whole and line.data.startswith(_END):
                export_id = line.data[len(_END) : len(_END) + _ID_CHARS].decode("ascii", "replace")
                if export_id in live:
                    ended.add(export_id)
        started = started_at(directory, segment)
        if started and parse_us(started) < oldest_us - _CLOCK_MARGIN_US:
            break
    return ended
