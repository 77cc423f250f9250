"""Counters that cannot grow without bound, and log lines that nothing can break or forge."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import LABEL_SETS_MAX, OTHER, REFUSALS, REQUESTS, TTFT, Counters, configure_logging

# ---- counters


def test_counts_add_up_by_label_set() -> None:
    counters = Counters()
    counters.add(REFUSALS, ("budget",))
    counters.add(REFUSALS, ("budget",), 2)
    counters.add(REFUSALS, ("residency",))
    assert counters.snapshot()["counters"] == {REFUSALS.name: [["budget", 3], ["residency", 1]]}


def test_a_duration_goes_into_the_first_bucket_that_holds_it() -> None:
    counters = Counters()
    for seconds in (0.0, TTFT.bounds[0], TTFT.bounds[0] + 1e-9, 1e9):
        counters.observe(TTFT, ("b",), seconds)
    (series,) = counters.snapshot()["histograms"][TTFT.name]["series"]
    buckets = series[1]
    assert buckets[:2] == [2, 1] and buckets[-1] == 1 and sum(buckets) == 4
    assert len(buckets) == len(TTFT.bounds) + 1


def test_label_sets_beyond_the_bound_are_counted_as_other_and_none_is_lost() -> None:
    counters = Counters()
    for number in range(LABEL_SETS_MAX + 500):
        counters.add(REQUESTS, ("acme", f"model-{number}", "completed"))
        counters.observe(TTFT, (f"backend-{number}",), 0.1)
    counters.add(REQUESTS, ("acme", "model-3", "completed"))
    snapshot = counters.snapshot()
    counts = {tuple(labels): number for *labels, number in snapshot["counters"][REQUESTS.name]}
    assert len(counts) == LABEL_SETS_MAX
    assert sum(counts.values()) == LABEL_SETS_MAX + 501
    assert counts["acme", "model-3", "completed"] == 2
    assert counts[OTHER, OTHER, OTHER] == 501
    assert len(snapshot["histograms"][TTFT.name]["series"]) == LABEL_SETS_MAX


def test_a_snapshot_does_not_change_afterwards() -> None:
    counters = Counters()
    counters.observe(TTFT, ("b",), 0.1)
    before = json.dumps(counters.snapshot())
    snapshot = counters.snapshot()
    counters.observe(TTFT, ("b",), 0.1)
    assert json.dumps(snapshot) == before


def test_a_wrong_number_of_labels_is_a_mistake_in_the_code() -> None:
    with pytest.raises(ValueError, match="has the labels"):
        Counters().add(REQUESTS, ("acme",))


# ---- logs


@contextmanager
def configured() -> Iterator[io.StringIO]:
    """Logs go to what is yielded; afterwards logging is as it was."""
    root, quiet = logging.getLogger(), [logging.getLogger(name) for name in ("httpx", "httpcore", "aiohttp.access")]
    handlers, raising, levels = root.handlers[:], logging.raiseExceptions, [each.level for each in (root, *quiet)]
    output = io.StringIO()
    configure_logging(output)
    try:
        yield output
    finally:
        root.handlers[:], logging.raiseExceptions = handlers, raising
        for logger, level in zip((root, *quiet), levels, strict=True):
            logger.setLevel(level)
        logging.captureWarnings(False)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with configured() as output:
        yield output


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_log_line_is_one_json_object_with_its_fields(stream: io.StringIO) -> None:
    logging.getLogger("tokenport.test").warning("feed %s", "no2", extra={"feed": "no2", "count": 3})
    (line,) = lines(stream)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "tokenport.test",
        "message": "feed no2",
        "feed": "no2",
        "count": 3,
    }


@given(st.text(), st.text())
def test_no_text_breaks_a_line_or_forges_one(message: str, field: str) -> None:
    with configured() as output:
        logging.getLogger("tokenport.test").error("%s", message, extra={"field": field})
    written = output.getvalue()
    assert written.endswith("\n") and len(written.splitlines()) == 1 and written.isascii()
    line = json.loads(written)
    assert (line["message"], line["field"]) == (message, field)


def test_a_field_named_like_a_secret_is_withheld(stream: io.StringIO) -> None:
    logging.getLogger("tokenport.test").error("x", extra={"api_key": "sk-1", "prompt": "hello", "path": "/v1"})
    (line,) = lines(stream)
    assert (line["api_key"], line["prompt"], line["path"]) == ("withheld", "withheld", "/v1")
    assert "sk-1" not in stream.getvalue() and "hello" not in stream.getvalue()


def test_a_field_cannot_pose_as_one_of_the_lines_own(stream: io.StringIO) -> None:
    logging.getLogger("tokenport.test").error("x", extra={"level": "debug", "ts": "1970"})
    (line,) = lines(stream)
    assert line["level"] == "error" and line["level_"] == "debug"
    assert line["ts"] != "1970"


def test_an_exception_stays_on_its_line(stream: io.StringIO) -> None:
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        logging.getLogger("tokenport.test").exception("failed")
    (line,) = lines(stream)
    assert "RuntimeError: two\nlines" in line["exception"]


def test_a_field_that_json_has_no_form_for_is_still_logged(stream: io.StringIO) -> None:
    circle: list[object] = []
    circle.append(circle)
    logging.getLogger("tokenport.test").error("x", extra={"figure": float("nan"), "circle": circle, "set": {1}})
    (line,) = lines(stream)
    assert (line["figure"], line["set"], line["message"]) == ("nan", "{1}", "x")


def test_configured_again_it_still_writes_each_line_once(stream: io.StringIO) -> None:
    configure_logging(stream)
    logging.getLogger("tokenport.test").info("once")
    assert len(lines(stream)) == 1


def test_clients_do_not_log_the_addresses_they_ask(stream: io.StringIO) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET https://prices.example/?secret=1")
    assert stream.getvalue() == ""
