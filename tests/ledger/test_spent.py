"""What budgets have used, as the ledger tells it: by day, tenant and log, from the index and from the logs."""

import pytest

from gateway.ledger.reading import Reader
from tests.ledger.exports import NOW_S, write_log
from tests.ledger.test_reading import ended, fold, log_of


@pytest.mark.parametrize("indexed", [False, True])
def test_what_a_budget_has_used_is_told_by_log(tmp_path, indexed):
    day = 86_400.0
    midnight = NOW_S // day * day
    for log, shift in ((0, 0), (3, 1000)):
        moments = (
            "2025-11-23T23:59:59.999999Z",
            "2025-11-24T00:00:00Z",
            "2025-11-24T23:59:59Z",
            "2025-11-25T00:00:00Z",
        )
        rows = [ended(shift + number, moment, 10 + number + log) for number, moment in enumerate(moments)]
        write_log(log_of(tmp_path, log), rows)
    if indexed:
        fold(tmp_path)
    with Reader(tmp_path) as reader:
        counted = {
            log: sum(
                each["input_tokens"] + each["billed_output_tokens"]
                for each in reader.rows(midnight, midnight + day)
                if each["log"] == log
            )
            for log in (0, 3)
        }
        assert reader.spent(midnight, midnight + day) == {"acme": counted}
        assert counted[0] != counted[3] and min(counted.values()) > 0
        assert reader.spent(midnight + 10 * day, midnight + 11 * day) == {}
