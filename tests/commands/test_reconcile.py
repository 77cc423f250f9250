"""A provider's usage beside ours: to the token, row by row and in sum."""

import csv
import io
import tracemalloc
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.cli import main
from gateway.finance.comparison import HOUR, Comparison
from gateway.finance.comparison_text import PAIRS_SHOWN
from gateway.finance.provider import ProviderFile
from gateway.ledger.instants import MICROS, parse_us, rfc3339
from gateway.ledger.opening import FailedAttempt
from pricing.export import Usage
from tests.commands.ledgers import BOUGHT
from tests.commands.provider_files import ROWS, START_US, as_csv, as_lines, attempts, bought, plain


def test_every_kind_of_difference_is_told_row_by_row_and_in_sum(ask):
    theirs = plain()
    theirs[3]["prompt_tokens"] += 7
    theirs[4]["cached_tokens"] -= 1
    del theirs[5]
    theirs.append({"request_id": "stranger", "prompt_tokens": 5, "cached_tokens": 0, "completion_tokens": 2})
    found = ask(as_csv(theirs))
    assert found["status"] == 1
    told = {each["key"]: each for each in found["differences"]}
    assert {key: each["verdict"] for key, each in told.items()} == {
        "client-3": "differing",
        "client-4": "differing",
        "client-5": "only ours",
        "stranger": "only theirs",
    }
    assert (told["client-3"]["input_ours"], told["client-3"]["input_theirs"]) == (1003, 1010)
    assert told["client-4"]["cached_difference"] == -1
    assert told["client-5"]["output_difference"] == -55 and told["client-5"]["line"] is None
    assert told["stranger"]["line"] == len(theirs) + 1 and told["stranger"]["export_id"] is None
    assert found["pairs"] == {"matched": 27, "differing": 2, "only_ours": 1, "only_theirs": 1, "unbilled": 0}
    assert found["totals"]["input"]["difference"] == 7 - 1005 + 5
    assert found["totals"]["requests"] == {"ours": 30, "theirs": 30, "difference": 0}


def test_attempts_that_failed_at_the_backend_count_and_those_at_others_do_not(ask):
    cut = FailedAttempt("bought-1", "eu-edge", "upstream_cut", 90, 400, Usage(800, 0, 0, 33), 500, 900, BOUGHT)
    elsewhere = FailedAttempt("other", "eu-edge", "upstream_cut", 90, 400, Usage(800, 0, 0, 44), 500, 900, BOUGHT)
    rows = [
        bought(0, failed=(elsewhere,)),
        bought(1, origin_backend="other", upstream_model="m", failed=(cut,)),
        bought(2, failed=(cut,)),
        bought(3, failed=(cut, cut), serving=False, outcome="upstream_refused"),
        bought(4, origin_backend="other"),
    ]
    found = ask(as_csv(plain(rows)), rows=rows)
    assert found["status"] == 0
    assert found["totals"]["requests"]["ours"] == 1 + 1 + 2 + 2
    assert found["totals"]["output"]["ours"] == 50 + 33 + (52 + 33) + 66
    theirs = [each for each in plain(rows) if each["request_id"] != "client-1"]
    (missing,) = ask(as_csv(theirs))["differences"]
    assert (missing["verdict"], missing["ended_as"], missing["estimated"]) == ("only ours", "upstream_cut", True)
    assert missing["model"] == "vendor/m-large"


def test_an_attempt_that_made_no_token_need_not_be_in_the_file(ask):
    refused = FailedAttempt("bought-1", "eu-edge", "connect_failed", None, 3000)
    rows = [bought(0), bought(1, origin_backend="other", failed=(refused,))]
    found = ask(as_csv(plain(rows[:1])), rows=rows)
    assert found["status"] == 0
    assert found["pairs"]["unbilled"] == 1


def test_counts_that_are_estimates_of_ours_say_so(ask):
    rows = [
        bought(0, count_source="estimated", outcome="client_gone"),
        bought(1, count_flags=("input_estimated",)),
        bought(2),
    ]
    theirs = plain(rows)
    for each in theirs:
        each["completion_tokens"] += 1
    found = ask(as_csv(theirs), rows=rows)
    assert [(each["ended_as"], each["estimated"]) for each in found["differences"]] == [
        ("client_gone", True),
        ("completed", True),
        ("completed", False),
    ]


def test_an_export_id_in_the_file_is_as_good_as_a_request_id(ask):
    rows = [bought(0), bought(1, request_id="")]
    theirs = [{**each, "request_id": row["export_id"]} for each, row in zip(plain(rows), rows, strict=True)]
    found = ask(as_csv(theirs), rows=rows)
    assert found["status"] == 0 and found["pairs"]["matched"] == 2


def test_an_id_that_a_client_used_twice_is_compared_in_sum(ask):
    rows = [bought(0, request_id="same"), bought(1, request_id="same")]
    assert ask(as_csv(plain(rows)), rows=rows)["status"] == 0
    (differing,) = ask(as_csv(plain(rows)[:1]))["differences"]
    assert (differing["verdict"], differing["requests_ours"], differing["requests_theirs"]) == ("differing", 2, 1)


def test_a_request_across_a_bound_is_matched_on_whichever_side_it_lies(ask):
    bound = parse_us("2025-11-25T00:00:00Z")
    rows = [bought(0, ended_us=bound + MICROS), bought(1, ended_us=bound + 3600 * MICROS)]
    theirs = [{**each, "created_at": rfc3339(bound - 5 * MICROS)} for each in plain(rows[:1])]
    found = ask(as_csv(theirs), "--from", "2025-11-24", "--to", "2025-11-25", rows=rows)
    assert (found["status"], found["pairs"]["matched"]) == (0, 1)
    found = ask(as_csv(theirs), "--from", "2025-11-25", "--to", "2025-11-26")
    assert found["pairs"]["matched"] == 1
    assert [each["key"] for each in found["differences"]] == ["client-1"]


def test_an_id_that_is_used_every_day_is_not_mixed_up_across_a_bound(ask):
    day = 86_400 * MICROS
    rows = [bought(number, ended_us=START_US + number * day, request_id="daily") for number in range(3)]
    theirs = [{**each, "created_at": row["ended_at"]} for each, row in zip(plain(rows), rows, strict=True)]
    found = ask(as_csv(theirs), "--from", "2025-11-25", "--to", "2025-11-26", rows=rows)
    assert (found["status"], found["totals"]["requests"]["ours"]) == (0, 1)


def test_without_bounds_what_the_file_spans_is_compared(ask):
    theirs = [{**each, "created_at": row["ended_at"]} for each, row in zip(plain(), ROWS, strict=True)]
    found = ask(as_csv(theirs[10:20]))
    assert (found["status"], found["pairs"]["matched"]) == (0, 10)
    found = ask(as_csv([*theirs[10:14], *theirs[15:20]]))
    assert [each["key"] for each in found["differences"]] == ["client-14"]


def test_days_are_those_of_the_time_zone_also_where_the_clock_changes(ask):
    berlin = ZoneInfo("Europe/Berlin")
    start = parse_us("2025-10-24T22:30:00Z")
    rows = [bought(number, ended_us=start + number * 3600 * MICROS) for number in range(72)]
    days: dict[str, list[int]] = {}
    for each in attempts(rows):
        local = datetime.fromisoformat(each["at"]).astimezone(berlin)
        day = days.setdefault(local.date().isoformat(), [0, 0])
        day[0] += each["input_tokens"]
        day[1] += each["output_tokens"]
    content = as_csv({"date": day, "input_tokens": a, "output_tokens": b} for day, (a, b) in days.items())
    found = ask(content, "--tz", "Europe/Berlin", rows=rows)
    assert (found["status"], found["by"], found["pairs"]["matched"]) == (0, "day", len(days))
    assert found["from"] == "2025-10-24T22:00:00.000000Z"
    assert ask(content)["status"] == 1


def test_a_log_of_requests_with_foreign_ids_can_be_compared_by_hour(ask, run):
    theirs = [
        {**each, "request_id": f"req_{number}", "created_at": row["ended_at"], "model": "vendor/m-large"}
        for number, (each, row) in enumerate(zip(plain(), ROWS, strict=True))
    ]
    status, _, error = run(as_csv(theirs))
    assert status == 1 and "none of the file's ids is one of ours" in error and "--by hour" in error
    found = ask(as_csv(theirs), "--by", "hour")
    assert (found["status"], found["pairs"]["matched"]) == (0, 5)


def test_models_are_told_apart_and_renamed_on_request(ask):
    rows = [bought(0), bought(1, model="n", upstream_model="vendor/n")]
    theirs = [
        {
            "hour": row["ended_at"][:13] + ":00Z",
            "model": name,
            "input_tokens": each["input_tokens"],
            "output_tokens": each["output_tokens"],
        }
        for each, row, name in zip(attempts(rows), rows, ("vendor/m-large-2025-08-07", "vendor/n"), strict=True)
    ]
    found = ask(as_csv(theirs), rows=rows)
    assert [(each["verdict"], each["model"]) for each in found["differences"]] == [
        ("only ours", "vendor/m-large"),
        ("only theirs", "vendor/m-large-2025-08-07"),
    ]
    assert ask(as_csv(theirs), "--models", "vendor/m-large-2025-08-07=vendor/m-large")["status"] == 0


def test_differences_up_to_a_tolerance_are_none(ask):
    theirs = plain()
    theirs[0]["completion_tokens"] += 3
    assert ask(as_csv(theirs), "--tolerance-tokens", "3")["status"] == 0
    assert ask(as_csv(theirs), "--tolerance-tokens", "2")["status"] == 1
    assert ask(as_csv(theirs[1:]), "--tolerance-tokens", "1000000")["status"] == 1, (
        "a request that is missing is no rounding"
    )


# ---- cost


def with_cost(change_nano: int = 0, form: str = "{:.6f}", **more: str) -> str:
    priced = [
        {**each, "cost": form.format(attempt["cost_tokens_nano"] / 1e9), **more}
        for each, attempt in zip(plain(), attempts(ROWS), strict=True)
    ]
    priced[7]["cost"] = form.format((attempts(ROWS)[7]["cost_tokens_nano"] + change_nano) / 1e9)
    return as_csv(priced)


def test_a_cost_is_compared_to_the_decimals_that_the_file_gives(ask):
    assert ask(with_cost())["status"] == 0
    assert ask(with_cost(form="${:.5f}"))["status"] == 0
    found = ask(with_cost(1500))
    assert found["status"] == 1
    (differing,) = found["differences"]
    assert differing["key"] == "client-7"
    assert 1000 <= differing["cost_nano_difference"] <= 2000
    assert differing["input_difference"] == differing["output_difference"] == 0


def test_costs_in_another_currency_stand_alone(ask, run):
    found = ask(with_cost(10**9, currency="eur"))
    assert found["status"] == 0 and found["currency"] == "EUR"
    assert found["totals"]["cost_nano"]["ours"] is None and found["totals"]["cost_nano"]["theirs"] > 0
    assert "costs are not compared: theirs are in EUR" in run(with_cost(currency="eur"))[2]


# ---- what is printed


def test_csv_has_all_differences_the_bad_lines_and_the_totals_and_runs_in_no_spreadsheet(run):
    theirs = [*plain()[1:], {"request_id": "=cmd()", "prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": "x"}]
    theirs.append({"request_id": "@formula", "prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 1})
    status, out, _ = run(as_csv(theirs), "--format", "csv")
    records = list(csv.DictReader(io.StringIO(out, newline="")))
    assert status == 1
    assert [each["verdict"] for each in records] == ["only theirs", "only ours", "unreadable", "total"]
    assert records[0]["key"] == "'@formula"
    assert records[1]["output_difference"] == "-50" and records[-1]["output_difference"] == "-49"


def test_a_table_shows_the_first_differences_and_how_many_more_there_are(run):
    strangers = [
        {"request_id": f"s-{number:03}", "prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 1}
        for number in range(80)
    ]
    status, out, _ = run(as_csv([*plain(), *strangers]))
    assert status == 1
    assert out.count("only theirs  s-") == PAIRS_SHOWN
    assert f"and {80 - PAIRS_SHOWN} more; json and csv have all of them" in out
    assert "30 matched, 0 differing, 0 only ours, 80 only theirs" in out


def test_a_file_steers_no_terminal(run):
    stranger = {"request_id": "\x1b[2J", "prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 1}
    bad = {"request_id": "x", "prompt_tokens": "\x1b[2J", "cached_tokens": 0, "completion_tokens": 1}
    _, out, error = run(as_lines([*plain(), stranger, bad]))
    assert "\x1b" not in out + error and "?[2J" in out


def test_a_long_file_takes_no_more_memory_than_a_short_one(tmp_path):
    def peak(lines: int) -> int:
        path = tmp_path / str(lines)
        with path.open("w") as file:
            file.write("request_id,created_at,input_tokens,output_tokens\n")
            file.writelines(f"id-{number},2025-11-24T16:00:00Z,{number},1\n" for number in range(lines))
        comparison = Comparison(ZoneInfo("UTC"), 0)
        tracemalloc.start()
        with path.open("rb") as file:
            comparison.take_file(ProviderFile(file, path, {}, ZoneInfo("UTC")), HOUR, {})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        comparison.close()
        return most

    assert peak(40_000) < 2_000_000  # held, they were six times that


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["reconcile", "--help"])
    assert ended.value.code == 0
    assert "tokenport reconcile --backend bought-1 usage.csv" in capsys.readouterr().out
