"""The crash campaign in its short form."""

from pathlib import Path

import pytest

from tests.chaos.campaign import campaign
from tests.crash.deeds import KINDS, kills

SEED = 20_261_124
REQUESTS = 300
KILLS = len(KINDS) + 2  # every kind, the first two twice


@pytest.mark.timeout(400)  # a dozen processes start one after the other, on whatever machine
async def test_killed_again_and_again_under_load_it_loses_nothing_and_counts_right(tmp_path: Path) -> None:
    report = await campaign(tmp_path, seed=SEED, requests=REQUESTS, deeds=kills(KILLS), workers=1)
    assert report.findings == []
    assert report.requests == REQUESTS
    assert sum(report.deeds.values()) == KILLS and len(report.deeds) == len(KINDS)
