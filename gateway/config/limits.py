"""The `[limits]` of a configuration: every bound and deadline of the gateway, with its default and its reason. And
`[ledger]`, likewise.

A limit is named as in the file, so that `limits.gap_s` in the code is `gap_s` under `[limits]`. Each field carries the
range it may be set to; the range only keeps a slip of the pen from switching a protection off or from asking for more
than a machine has.
"""

from dataclasses import dataclass, field
from typing import Any

KIB = 1024
MIB = 1024 * KIB
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
GIB = 1024 * MIB


def _within(default: float, low: float, high: float) -> Any:
    """A field with its range. `Any`, because the annotation beside it names the type."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Limits:
    """Defaults are those of a port that faces the public."""

    # The client's request: the rest is attack surface.
    head_bytes_max: int = _within(16 * KIB, KIB, MIB)  # SDKs send about 1 KiB
    fields_max: int = _within(100, 8, 1000)  # header fields in one head
    line_bytes_max: int = _within(8190, 256, 64 * KIB)  # request line or one field; what common servers take
    body_bytes_max: int = _within(16 * MIB, KIB, 1024 * MIB)  # the longest prompts are about 5 MB
    bodies_bytes_max: int = _within(256 * MIB, KIB, 64 * 1024 * MIB)  # all bodies a worker holds at once
    head_s: float = _within(10.0, 0.01, 300.0)  # absolute, so that one byte a second does not help an attacker
    body_s: float = _within(30.0, 0.01, HOUR_S)  # absolute, for bodies that the minimum rate does not allow more
    body_large_s: float = _within(120.0, 0.01, HOUR_S)  # the most a large body may take
    body_bytes_per_s_min: int = _within(64 * KIB, 1, 1024 * MIB)  # a large body earns its time at this rate
    idle_s: float = _within(75.0, 0.01, HOUR_S)  # longer than the usual 60 s of load balancers

    # The backend's answer.
    connect_s: float = _within(3.0, 0.01, 300.0)  # TLS included: three intercontinental round trips plus slack
    spare_connections: int = _within(2, 0, 100)  # idle ones per backend in use: for the next request and one beside it
    first_content_s: float = _within(60.0, 0.01, DAY_S)  # a long prefill; a rule may set its own
    gap_s: float = _within(30.0, 0.01, DAY_S)  # a hundred times a slow token; a rule may set its own
    stream_s: float = _within(3600.0, 0.01, DAY_S)  # a bound must exist; a rule may set its own
    event_bytes_max: int = _within(MIB, KIB, 64 * MIB)  # beyond it the backend is broken
    upstream_head_bytes_max: int = _within(32 * KIB, KIB, MIB)  # beyond it the backend is broken
    bad_events_max: int = _within(3, 0, 1000)  # unparsable events are dropped up to this many, then the stream ends

    # The client's reading: slow readers must not hold memory.
    write_stall_s: float = _within(60.0, 0.01, HOUR_S)  # without write progress the client counts as gone
    buffer_bytes_high: int = _within(64 * KIB, KIB, 64 * MIB)  # reading from the backend pauses here
    buffer_bytes_max: int = _within(384 * KIB, KIB, 256 * MIB)  # hard bound; one larger event in flight excepted

    # Room at the backends. Early and plain refusals: what waits behind others only makes more of them late.
    fair_share: bool = True  # beyond its share of a filling backend a tenant leaves the last slots to the others
    queue_slo_share: float = _within(1.0, 0.0, 10.0)  # of a rule's TTFT objective that a queue may take; 0: any queue

    # Second tries: amplification of at most 1.2 under load, and a small gateway still fails over whole.
    retry_share: float = _within(0.2, 0.0, 1.0)  # of the starts of the last 10 s
    retries_min: int = _within(32, 0, 100_000)  # per 10 s, whatever the share says
    hedge_share: float = _within(0.05, 0.0, 1.0)  # second attempts beside a late first one, of the starts that may
    hedges_min: int = _within(2, 0, 100_000)  # per 10 s, whatever the share says
    backoff_ms_max: float = _within(250.0, 1.0, 60_000.0)  # jittered from 25 ms (or this, if lower) up to this

    # Ejection: fast failures must not look like low latency.
    eject_failures: int = _within(5, 1, 10_000)  # in a row
    eject_share: float = _within(0.5, 0.0, 1.0)  # more than this share of 20 in 10 s
    eject_s: float = _within(30.0, 0.0, DAY_S)  # times the number of ejections, where a backend cannot be probed
    eject_s_max: float = _within(300.0, 0.0, DAY_S)  # bound of the line above
    probe_s: float = _within(5.0, 0.01, HOUR_S)  # background probes; two good ones end an ejection
    slow_start_s: float = _within(10.0, 0.0, HOUR_S)  # a returning backend gets its share gradually

    # Shutdown: balancers need seconds, answers take minutes.
    accept_s: float = _within(5.0, 0.0, HOUR_S)  # still accepting while unready
    drain_s: float = _within(120.0, 0.0, DAY_S)  # for streams to end by themselves
    exit_s: float = _within(5.0, 0.0, HOUR_S)  # after that, to write error events and settle

    # The process. Two descriptors per stream: the smaller of this and 80 % of the descriptors / 2 applies.
    connections_max: int = _within(10_000, 1, 1_000_000)

    # Group commit: at once when the writer is idle, else what gathered meanwhile, up to these two.
    commit_rows_max: int = _within(256, 1, 100_000)
    commit_ms: float = _within(5.0, 0.0, 1000.0)


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """`[ledger]`: how long the pieces of a log are, how long they stay readable without unpacking, and how long at
    all."""

    segment_s: float = _within(HOUR_S, 1.0, 30 * DAY_S)  # a segment ends after so long: sealed is what ended
    segment_bytes_max: int = _within(64 * MIB, 64 * KIB, GIB)  # or at this size; a start reads one segment
    plain_s: float = _within(600.0, 0.0, 365 * DAY_S)  # a log shipper of the machine may follow the plain file
    # Rows older than this, or the oldest beyond this size, go once nobody needs them; their sums stay. 0: all stay.
    keep_days: float = _within(0.0, 0.0, 36_500.0)
    keep_bytes: int = _within(0, 0, 2**50)  # of all segments on the disk; the index is about as large again
