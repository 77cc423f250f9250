"""Budgets: what the limiter counts, and where it leads."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.commands.budgets import budget_rows
from gateway.config import load_file
from gateway.edge.shares import period_bounds
from gateway.ledger.reading import Reader
from gateway.ledger.segment import Record
from tests.commands.filled import Ledger, export_of
from tests.commands.test_commands import CONFIGURATION

TENANTS = """
[[tenants]]
name = "acme"
budget = { tokens = 10_000, period = "month" }
[[tenants]]
name = "idle"
budget = { tokens = 500, period = "year" }
[[tenants]]
name = "free"
[[teams]]
tenant = "acme"
name = "research"
budget = { tokens = 900, period = "year" }
[[users]]
team = "research"
name = "ada"
budget = { tokens = 90, period = "day" }
"""
NOW = datetime(2025, 11, 21, tzinfo=UTC).timestamp()  # two thirds of November


@pytest.fixture
def budgets(ledger: Ledger) -> Ledger:
    ledger.configuration.write_text(CONFIGURATION + TENANTS)
    return ledger


def rows_at(ledger: Ledger, now: float, tenants: tuple[str, ...] | None = None) -> dict[str, Record]:
    settings = load_file(ledger.configuration, {})
    with Reader(ledger.data_dir) as reader:
        return {row["name"]: row for row in budget_rows(settings, reader, now, tenants)}


@pytest.mark.parametrize("indexed", [False, True])
def test_used_is_what_the_limiter_counts(budgets, indexed):
    exports = [export_of(number, f"2025-11-{day:02}T12:00:00Z") for number, day in enumerate((1, 19, 20, 20))]
    budgets.write(
        export_of(8, "2025-10-31T23:59:59.999999Z"), *exports, export_of(9, "2025-11-02T00:00:00Z", tenant="x")
    )
    if indexed:
        budgets.fold()
    row = rows_at(budgets, NOW)["acme"]
    with Reader(budgets.data_dir) as reader:
        assert row["used_tokens"] == sum(reader.spent(*period_bounds("month", NOW))["acme"].values())
    assert row["used_tokens"] == sum(each["input_tokens"] + each["billed_output_tokens"] for each in exports)
    assert (row["period_start"], row["period_end"]) == ("2025-11-01T00:00:00.000000Z", "2025-12-01T00:00:00.000000Z")


def test_the_forecast_is_the_mean_of_whole_days_since_the_first_export(budgets):
    exports = [export_of(0, "2025-11-17T12:00:00Z"), export_of(0, "2025-11-20T12:00:00Z")]
    exports[1]["export_id"] = exports[1]["export_id"].replace("0", "f", 1)
    budgets.write(*exports)  # 150 tokens each
    row = rows_at(budgets, NOW)["acme"]
    assert (row["used_tokens"], row["mean_of_days"], row["daily_tokens"]) == (300, 4, 75)
    assert row["forecast_tokens"] == 300 + 10 * 75
    assert row["reached_at"] is None, "not in this month"
    # Half a day later a half day less is left, and today's tokens are in no mean yet.
    assert rows_at(budgets, NOW + 43_200)["acme"]["forecast_tokens"] == 300 + 712


def test_old_days_count_for_no_forecast(budgets):
    budgets.write(export_of(0, "2025-10-23T12:00:00Z"))
    row = rows_at(budgets, NOW)["acme"]
    assert (row["mean_of_days"], row["daily_tokens"], row["forecast_tokens"], row["reached_at"]) == (
        0,
        None,
        None,
        None,
    )


def test_a_limit_that_will_be_reached_says_when(budgets):
    budgets.write(*(export_of(number, "2025-11-20T12:00:00Z") for number in range(40)))
    row = rows_at(budgets, NOW)["acme"]
    used = row["used_tokens"]
    assert used < 10_000 < row["forecast_tokens"]
    at = datetime.fromisoformat(row["reached_at"]).timestamp()
    assert at == pytest.approx(NOW + (10_000 - used) / used * 86_400, abs=0.01)
    budgets.write(*(export_of(number, "2025-11-20T13:00:00Z") for number in range(50, 90)))
    row = rows_at(budgets, NOW)["acme"]
    assert row["used_tokens"] > 10_000 and datetime.fromisoformat(row["reached_at"]).timestamp() == NOW


def test_who_used_nothing_used_nothing_and_what_is_not_known_is_not_said(budgets):
    found = rows_at(budgets, NOW)
    assert list(found) == ["acme", "idle", "research", "research/ada"]
    assert (found["idle"]["used_tokens"], found["idle"]["forecast_tokens"]) == (0, None)
    for name in ("research", "research/ada"):
        assert found[name]["used_tokens"] is found[name]["forecast_tokens"] is None
        assert found[name]["limit_tokens"] and found[name]["tenant"] == "acme"
    assert list(rows_at(budgets, NOW, ("idle",))) == ["idle"]


def test_the_command_tells_its_method_and_takes_no_period(budgets, capsys):
    assert budgets.ask("report", "--budgets") == 0
    told = capsys.readouterr().out
    assert "forecast: used + mean of the last 28 whole days" in told and "not enforced yet" in told
    for option in (["--from", "2025-11-01"], ["--period", "day"], ["--model", "qwen3"], ["--by", "tenant"]):
        assert budgets.ask("report", "--budgets", *option) == 2


def test_without_budgets_there_is_one_line(ledger, capsys, tmp_path: Path):
    assert main(["report", "--config", str(ledger.configuration), "--budgets"]) == 0
    assert "no tenant has a budget" in capsys.readouterr().err
