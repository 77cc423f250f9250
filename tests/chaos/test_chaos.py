"""The fault campaign in its short form, and what makes it one."""

from collections import Counter
from pathlib import Path

from tests.chaos.campaign import campaign
from tests.chaos.deeds import RELOADS, WORKER_KILLS, kill_worker, reload
from tests.chaos.faults import FAULTS, Ending
from tests.chaos.plan import WEIGHTS, plan

SEED = 20_261_126
REQUESTS = 1000


async def test_under_faults_kills_and_reloads_nothing_hangs_leaks_or_is_miscounted(tmp_path: Path) -> None:
    report = await campaign(tmp_path, seed=SEED, requests=REQUESTS, deeds=[(kill_worker, 2), (reload, 4)])
    assert report.findings == []
    # The plan was carried out: all of it came, and every way to end was there but one that is rare in so short a form
    # (a stall after content, which a kill or a client that leaves may come before).
    assert (report.requests, report.deeds) == (REQUESTS, {WORKER_KILLS: 2, RELOADS: 4})
    assert report.manners.keys() == WEIGHTS.keys()
    ways = {"completed", "client_gone", "recovered", "deadline", "upstream_refused"}
    ways |= {"upstream_cut", "upstream_error", "upstream_malformed"}
    assert report.outcomes.keys() >= ways
    assert report.sources.keys() == {"upstream", "counted", "continuous", "estimated"}


def test_a_seed_says_who_comes_and_what_they_meet() -> None:
    assert plan(7, 500) == plan(7, 500)
    assert plan(7, 500) != plan(8, 500)
    errands = [errand for visit in plan(7, 500) for errand in visit.errands]
    assert len({errand.request_id for errand in errands}) == len(errands) == 500


def test_at_length_every_manner_meets_every_fault() -> None:
    visits = plan(SEED, 10_000)
    assert {visit.manner for visit in visits} == WEIGHTS.keys()
    fates = [errand.fate for visit in visits for errand in visit.errands]
    assert len({fate.name for fate in fates}) > len(FAULTS)
    endings = Counter(fate.ending for fate in fates)
    assert all(endings[ending] > 100 for ending in Ending)
