"""What was written once is read for ever: a later version with more columns reads, sums, audits and goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.log import LedgerUnavailable, LogWriter
from gateway.ledger.reading import Reader
from pricing.export import NAMES

from .exports import opening, row, write_log
from .later_version import copy_sources, run

LATER = ["cost_water_nano", "unit_water_nano_per_mtok"]

# Audits and sums, recovers the open export, ends one more of its own, folds, audits and sums again.
PROGRAM = """
import io, json, sys
from dataclasses import replace
from pathlib import Path

import pricing
from gateway.ledger.formats import write_jsonl
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.reading import Reader
from gateway.ledger.recovery import recover_log
from gateway.ledger.verify import verify
from pricing.export import conservation
from tests.ledger.exports import NOW_S, POWER, row, write_log

assert Path(pricing.__path__[0]).parent == Path.cwd()
data_dir = Path(sys.argv[1])
ledger = data_dir / "ledger"

def now():
    out = io.StringIO()
    with Reader(data_dir) as reader:
        write_jsonl(reader.rows(), out)
        rows = [json.loads(line) for line in out.getvalue().splitlines()]
        differing = [each["export_id"] for each in rows if conservation(each)]
        findings = [*verify(data_dir, live=[sys.argv[2]]), *differing]
        return {"rows": rows, "sums": reader.sums(), "findings": findings}

def fold():
    index = Index(ledger / INDEX_NAME)
    index.fold(ledger)
    index.close()

found = {"unfolded": now()}
fold()
found["folded"] = now()
recover_log(ledger, 0, NOW_S + 3600)
write_log(ledger / "0", [row(900, units=replace(POWER, water_nano_per_mtok=7_000_000))])
found["longer"] = now()
fold()
found["longer, folded"] = now()
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten ends and an export that is open, written by this version."""
    data_dir = tmp_path_factory.mktemp("data")
    write_log(data_dir / "ledger" / "0", [row(number) for number in range(10)])
    writer = LogWriter(data_dir / "ledger" / "0", 0, None)
    writer.append(opening(500).entry())
    writer.close()
    return data_dir


@pytest.fixture(scope="module")
def before(data_dir: Path) -> dict[str, Any]:
    with Reader(data_dir) as reader:
        return {"rows": list(reader.rows()), "sums": reader.sums()[0]}


@pytest.fixture(scope="module")
def later(data_dir: Path, before: object, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    sources = tmp_path_factory.mktemp("sources")
    copy_sources(sources)
    found: dict[str, Any] = json.loads(run(sources, PROGRAM, str(data_dir), opening(500).export_id))
    return found


@pytest.mark.parametrize("state", ["unfolded", "folded"])
def test_a_later_version_reads_sums_and_audits_what_this_one_wrote(later, before, state):
    found = later[state]
    assert found["findings"] == []
    assert [list(each) for each in found["rows"]] == [[*NAMES, *LATER]] * 10
    assert [{name: each[name] for name in NAMES} for each in found["rows"]] == before["rows"]
    assert all(each[name] is None for each in found["rows"] for name in LATER)
    (sums,) = found["sums"]
    assert sums == before["sums"] | {"cost_water_nano": 0}


@pytest.mark.parametrize("state", ["longer", "longer, folded"])
def test_a_later_version_goes_on_in_the_same_log_and_ends_what_was_open(later, before, state):
    found = later[state]
    assert found["findings"] == []
    *old, own, recovered = found["rows"]
    assert [{name: each[name] for name in NAMES} for each in old] == before["rows"]
    assert (own["cost_water_nano"], own["unit_water_nano_per_mtok"]) == (own["output_tokens"] * 7, 7_000_000)
    assert own["cost_nano"] == row(900)["cost_nano"] + own["cost_water_nano"]
    assert (recovered["record"], recovered["export_id"]) == ("recovered", opening(500).export_id)
    assert recovered["unit_water_nano_per_mtok"] == 0, "it was not asked for when the request was admitted"
    (sums,) = found["sums"]
    assert (sums["requests"], sums["cost_water_nano"]) == (12, own["cost_water_nano"])


def test_this_version_refuses_a_log_that_a_later_one_went_on_with(data_dir, later):
    with pytest.raises(LedgerUnavailable, match="version 2"):
        LogWriter(data_dir / "ledger" / "0", 0, None)
