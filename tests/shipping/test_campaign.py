"""The short form of the campaign; `python -m tests.shipping` is the long one."""

from . import campaign


def test_stores_that_are_killed_under_load_lose_nothing_double_nothing_and_keep_the_order(tmp_path, postgres, nats):
    result = campaign.run(tmp_path, postgres, nats, kills=2, rows_per_s=400, seed=1)
    assert result.problems() == []
    assert all(len(rows) > 100 for rows in result.written.values())
