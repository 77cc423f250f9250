"""Routes as good as the best one, as far as anybody notices.

Estimates of time are never equal, so the least of them would take all of the traffic of two sites that are equally
good, and a breath of noise would move it. Hence routes whose times differ from the best one's by less than anybody
notices are compared again as if they took the same time: then the money decides, then the load.
"""

from typing import Final

from routing.candidate import Entry
from routing.constraint import View
from routing.policy import FASTEST

NOTICED_S: Final = 0.02  # a difference in time that nobody notices: this,
NOTICED_SHARE: Final = 0.1  # and a tenth of what is learned of it; link and queue are known
EXACT: Final = 14  # decimals of money; behind them are the errors of floats


def noticed_figure(view: View, best: Entry) -> float:
    """How much more than the best one's figure a route may have that differs in no time anybody notices."""
    if view.noticed:
        return view.noticed
    if best[7] <= view.rule.money_decides_within_s:
        return view.value_per_second * _noticed_s(best, best[6])
    return _noticed_s(best, best[7]) if view.rule.objective.kind == FASTEST else 0.0


def _noticed_s(best: Entry, time_s: float) -> float:
    return NOTICED_S + NOTICED_SHARE * (time_s - best[8])


def spread(view: View, best: Entry, near: list[Entry]) -> Entry:
    """The best where times that nobody tells from those of the least are the same."""
    if noticed_figure(view, best) == 0.0:
        return best
    ttft_s, delay_s = best[7], best[6]
    noticed_ttft_s, noticed_delay_s = _noticed_s(best, ttft_s), _noticed_s(best, delay_s)
    by_money = ttft_s <= view.rule.money_decides_within_s
    least: tuple[float, float, float, str] | None = None
    for entry in near:
        first, second = entry[0], entry[1]
        later_s = entry[6] - delay_s
        same = later_s * view.value_per_second if -noticed_delay_s <= later_s <= noticed_delay_s else 0.0
        if by_money:
            first -= same
        else:
            second -= same
            if -noticed_ttft_s <= entry[7] - ttft_s <= noticed_ttft_s:
                first = ttft_s
        order = round(first, EXACT), round(second, EXACT), entry[2], entry[3]
        if least is None or order < least:
            least, best = order, entry
    return best
