"""`tokenport simulate`: files in, assignments and figures out."""

import csv
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from gateway import cli
from gateway.rehearsal import ProgressBar, RehearsalError, read_assignments, read_inputs, read_prices, rehearse
from routing.simulator.costs import settle
from tests.simulator.stage import DATA, inputs

SMOKE = DATA / "smoke.toml"


def scenario(directory: Path, **replacements: str) -> Path:
    """The smoke scenario in a directory of its own, with its text changed."""
    text = SMOKE.read_text("utf-8")
    for old, new in {"prices.csv": str(DATA / "prices.csv"), **replacements}.items():
        assert old in text
        text = text.replace(old, new)
    path = directory / "scenario.toml"
    path.write_text(text, "utf-8")
    requests = directory / "smoke_requests.csv.gz"
    if not requests.exists():
        requests.symlink_to(DATA / requests.name)
    return path


def simulate(*arguments: str) -> int:
    return cli.main(["simulate", *arguments])


def test_the_report_is_for_people_and_says_that_it_is_simulated(tmp_path, capsys):
    assert simulate(str(SMOKE), "--assignments", str(tmp_path / "out.csv")) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Simulated: scenario smoke, policy money.")
    for figure in ("energy", "total", "mean TTFT", "SLO misses", "violations     none", "regret", "saving"):
        assert figure in shown.out
    assert "100% 2,000 requests" in shown.err
    assert "a second" in shown.err


def test_figures_come_as_json_and_csv_too(tmp_path, capsys):
    out = str(tmp_path / "out.csv")
    assert simulate(str(SMOKE), "--assignments", out, "--policy", "nearest", "--format", "json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["simulated"] is True
    assert (figures["policy"], figures["violations"]["total"]) == ("nearest", 0)
    assert figures["regret_pct"] == pytest.approx(100 * (figures["total_usd"] / figures["bound_usd"] - 1))
    assert figures["captured_saving_pct"] == pytest.approx(
        100 * (figures["nearest_usd"] - figures["total_usd"]) / (figures["nearest_usd"] - figures["bound_usd"])
    )
    assert simulate(str(SMOKE), "--assignments", out, "--policy", "nearest", "--format", "csv") == 0
    (row,) = csv.DictReader(StringIO(capsys.readouterr().out))
    assert float(row["total_usd"]) == figures["total_usd"]
    assert int(row["served_tx"]) == figures["served"]["tx"]


def test_the_figures_follow_from_the_file_that_was_written(tmp_path):
    out = tmp_path / "out.csv"
    rehearsal = rehearse(SMOKE, out, "money", progress=StringIO())
    smoke = inputs("smoke")
    lines = read_assignments(out)
    assert [line.request_id for line in lines] == [request.request_id for request in smoke.requests]
    assert settle(smoke.world, smoke.prices, smoke.requests, lines) == rehearsal.outcome


def test_a_late_time_is_written_with_six_decimals_and_others_not_at_all(tmp_path):
    slow = scenario(tmp_path, **{"fault_detect_s = 5.0": "fault_detect_s = 60.0", "from_s = 7200.0": "from_s = 4000.0"})
    out = tmp_path / "out.csv"
    assert rehearse(slow, out, "money", progress=StringIO()).outcome.violations.total == 0
    with out.open() as file:
        times = [row["sent_s"] for row in csv.DictReader(file)]
    late = [time for time in times if time]
    assert 0 < len(late) < 10
    assert all(len(time.partition(".")[2]) == 6 for time in late)


def test_another_process_writes_the_same_bytes(tmp_path):
    written = []
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.csv"
        command = [sys.executable, "-m", "gateway", "simulate", str(SMOKE), "--assignments", str(out)]
        subprocess.run(command, check=True, capture_output=True, timeout=60, env={**os.environ, "PYTHONHASHSEED": seed})
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert len(written[0].splitlines()) == 2001


def test_a_violation_is_a_finding(tmp_path, capsys):
    """A line narrower than a single answer: an idle line takes one all the same."""
    narrow = scenario(tmp_path, **{"capacity_mbps = 6.5": "capacity_mbps = 0.01"})
    assert simulate(str(narrow), "--assignments", str(tmp_path / "out.csv")) == 1
    shown = capsys.readouterr()
    assert "link_over_capacity_bins" in shown.out
    assert "not valid" in shown.err


def test_a_scenario_without_a_bound_has_no_regret(tmp_path, capsys):
    bare = scenario(tmp_path, bound_usd="some_usd")
    assert simulate(str(bare), "--assignments", str(tmp_path / "out.csv")) == 0
    out = capsys.readouterr().out
    assert "regret" not in out
    assert "saving" not in out


@pytest.mark.parametrize(
    ("replacements", "problem"),
    [
        ({"slots = 45": "slots = 0"}, "sites[0].slots"),
        ({"[scenario]": "[scenario"}, "scenario.toml"),
        ({"smoke_requests.csv.gz": "nowhere.csv"}, "nowhere.csv: No such file"),
        ({"US-TEX-ERCO_USD": "MOON_USD"}, "no column MOON_USD"),
        ({'id = "voice"': 'id = "silence"'}, "no tenant is called 'voice'"),
    ],
    ids=["value", "syntax", "no file", "no zone", "no tenant"],
)
def test_what_is_wrong_with_a_file_is_one_line_and_status_2(tmp_path, capsys, replacements, problem):
    assert simulate(str(scenario(tmp_path, **replacements)), "--assignments", str(tmp_path / "out.csv")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line


def test_an_unknown_policy_is_named_with_the_known_ones(tmp_path, capsys):
    assert simulate(str(SMOKE), "--assignments", str(tmp_path / "out.csv"), "--policy", "hope") == 2
    known = "money, myopic, plan_alone, correction_alone, nearest, round_robin, least_outstanding, cheapest_energy"
    assert known in capsys.readouterr().err


def test_an_empty_cell_takes_the_last_price(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("utc_hour,A,B\n2024-05-08T00,,1\n2024-05-08T01,5,\n2024-05-08T02,,-3\n")
    prices = read_prices(path, ["A", "B"])
    first = prices["B"].first_utc_hour
    assert prices["B"].per_mwh == (1.0, 1.0, -3.0)
    assert (prices["A"].first_utc_hour, prices["A"].per_mwh) == (first + 1, (5.0, 5.0))


def test_runs_of_prefix_blocks_have_both_ends():
    blocks = {request.request_id: request.prefix_blocks for request in read_inputs(DATA / "check.toml").requests}
    assert blocks[0] == (0, 1, 7)
    assert blocks[1] == (0, 1, 2, 3, 30)


@pytest.mark.parametrize(
    "line", ["0,5.0,us,consumer,100", "0,4.0,us,consumer,100,10", "9,6.0,us,consumer,0,10", "9,6.0,us,consumer,1.5,10"]
)
def test_a_bad_request_list_is_refused(tmp_path, line):
    requests = tmp_path / "requests.csv"
    header = "request_id,arrival_s,region,tenant,prompt_tokens,output_tokens"
    requests.write_text(f"{header}\n3,5.0,us,consumer,100,10\n{line}\n")
    with pytest.raises(RehearsalError, match=r"requests\.csv"):
        read_inputs(scenario(tmp_path, **{"smoke_requests.csv.gz": "requests.csv"}))


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal():
    screen = Terminal()
    bar = ProgressBar(1000, screen)
    for done in range(1, 1001):
        bar.show(done)
    bar.end()
    drawn = screen.getvalue()
    assert drawn.count("\n") == 1
    assert drawn.endswith("] 100% 1,000 requests\n")
    assert 90 < drawn.count("\r") < 110
