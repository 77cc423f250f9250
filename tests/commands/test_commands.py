"""Commands that need no gateway: what they print, for people and for programs."""

import csv
import io
import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.ledger.tables import DIMENSIONS, FIGURES
from tests.ledger.exports import row, write_log

CONFIGURATION = """
[gateway]
edge = "edge"

[regions]
edge = { country = "DE", power = { price_per_mwh = 60.0 } }

[[backends]]
name = "here"
region = "edge"
url = "http://127.0.0.1:9001/v1"
models = { "m" = "m" }
slots = 4
joules_per_token = { prefill = 0.1, decode = 1.0 }

[[routes]]
model = "m"
backends = ["here"]
"""


@pytest.fixture
def configured(tmp_path: Path) -> list[str]:
    """The option that names a configuration with rows of two hours of one day, by two tenants, in its ledger."""
    path = tmp_path / "tokenport.toml"
    path.write_text(CONFIGURATION)
    rows = [row(number, tenant=f"tenant-{number % 2}") for number in (0, 1, 3600, 3601)]
    for number, each in zip((0, 1, 3600, 3601), rows, strict=True):
        each["ended_at"] = f"2025-11-24T{16 + number // 3600}:00:00.000000Z"
    write_log(tmp_path / "var" / "ledger" / "0", rows)
    return ["--config", str(path)]


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main(["report", *arguments, "--format", "json"]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def test_a_report_by_period_needs_no_period_among_its_dimensions(configured, capsys):
    days = report(capsys, *configured, "--period", "day")
    assert [(each["period"], each["origin_country"], each["requests"]) for each in days] == [("2025-11-24", "CN", 4)]
    hours = report(capsys, *configured, "--by", "tenant", "--period", "hour")
    assert [(each["period"], each["tenant"], each["requests"]) for each in hours] == [
        ("2025-11-24T16:00+00:00", "tenant-0", 1),
        ("2025-11-24T16:00+00:00", "tenant-1", 1),
        ("2025-11-24T17:00+00:00", "tenant-0", 1),
        ("2025-11-24T17:00+00:00", "tenant-1", 1),
    ]
    assert hours == report(capsys, *configured, "--by", "tenant,period", "--period", "hour")


def test_a_report_has_a_period_only_if_it_was_asked_for_and_days_if_not_said_which(configured, capsys):
    (one,) = report(capsys, *configured)
    assert "period" not in one and one["requests"] == 4
    (day,) = report(capsys, *configured, "--by", "period")
    assert day["period"] == "2025-11-24"


def test_a_report_for_people_shows_the_period_that_was_asked_for(configured, capsys):
    assert main(["report", *configured, "--by", "tenant", "--period", "month"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["tenant", "period", "requests"]
    assert [line.split()[:3] for line in lines[:2]] == [["tenant-0", "2025-11", "2"], ["tenant-1", "2025-11", "2"]]
    assert set(lines[2]) == {"-", " "} and lines[3].split()[:2] == ["total", "4"]


def test_a_report_of_nothing_has_the_columns_of_one_of_something(configured, capsys):
    def header(*arguments: str) -> list[str]:
        asked = ["report", *configured, "--by", "model", "--period", "day", "--format", "csv", *arguments]
        assert main(asked) == 0
        return next(csv.reader(io.StringIO(capsys.readouterr().out)))

    assert header() == header("--from", "2031-01-01") == ["period", "model", "currency", *FIGURES]


@pytest.mark.parametrize("name", [*DIMENSIONS, "period"])
def test_every_dimension_is_taken_and_told_in_the_help(name, configured, capsys):
    assert report(capsys, *configured, "--by", name)
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert name in capsys.readouterr().out


def test_what_is_no_dimension_is_refused_with_those_there_are(configured, capsys):
    assert main(["report", *configured, "--by", "tenant,colour"]) == 2
    assert "--by colour: not a dimension; choose from origin_country" in capsys.readouterr().err


def test_check_counts_one_of_a_thing_as_one(configured, capsys):
    assert main(["check", *configured]) == 0
    told = capsys.readouterr().out.strip()
    assert told.endswith("good: 1 backend in 1 region, 0 links, 1 route, 0 tenants")
