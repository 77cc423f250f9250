"""Closing the books: what visitors saw, what backends wrote and what the ledger says, against each other.

Of an admitted request all three are known to the token. A request whose worker was killed is judged by what must hold
even then: one row at most, exactly one if any backend saw the request, no count below what was received or above what
was written. Everybody else gets what the fate says, and not a byte that says otherwise.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

from tests.chaos.faults import Ending
from tests.chaos.plan import LEAVING, REFUSED_MANNERS
from tests.chaos.scenes import LIMITS
from tests.chaos.visitors import Account
from tests.fakes.backend import Served
from tests.fakes.gateway import Row
from tests.integration.recomputation import differences

# What a worker's end does to a connection is seen this long after it; and of a request whose client has just left, or
# has just got all of it, the end may not have been written down yet.
AROUND_S = 1.0
SENDING_S_MAX: float = min(LIMITS["head_s"], LIMITS["body_s"])
Findings = list[str]


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a worker was killed and replaced."""

    began_at: float
    ended_at: float

    def touches(self, account: Account) -> bool:
        return account.began_at <= self.ended_at + AROUND_S and account.ended_at >= self.began_at - AROUND_S


class Books:
    """All accounts of a round beside the ledger's rows and the backends' logs."""

    def __init__(
        self,
        accounts: Iterable[Account],
        rows: Iterable[Row],
        served: Mapping[str, list[Served]],
        kills: Iterable[Span],
        next_seq: MutableMapping[int, int],
    ) -> None:
        """`next_seq` says of each log how many rows there were before, and learns of these."""
        self.accounts = list(accounts)
        self.rows = list(rows)
        self._served = served
        self._kills = list(kills)
        self._next_seq = next_seq
        self._by_request: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            self._by_request[row["request_id"]].append(row)

    def findings(self) -> Findings:
        """Everything that is not as it must be."""
        found = self._of_the_ledger()
        for account in self.accounts:
            for finding in self._of(account):
                fate = account.errand.fate
                found.append(f"{account.errand.request_id} ({account.manner}, {fate.scene}, {fate.name}): {finding}")
        return found

    # ---- the ledger by itself

    def _of_the_ledger(self) -> Findings:
        found = [f"{row['export_id']}: costs {wrong}" for row in self.rows if (wrong := differences(row))]
        ids = Counter(row["export_id"] for row in self.rows)
        found += [f"{export_id}: {count} rows" for export_id, count in ids.items() if count > 1]
        known = {account.errand.request_id for account in self.accounts}
        found += [f"{row['export_id']}: nobody asked for {row['request_id']!r}" for row in self._strangers(known)]
        for log, count in Counter(row["log"] for row in self.rows).items():
            first = self._next_seq.get(log, 0)
            numbers = sorted(row["seq"] for row in self.rows if row["log"] == log)
            if numbers != list(range(first, first + count)):
                found.append(f"log {log}: its terminal records are not numbered from {first} on without a gap")
            self._next_seq[log] = first + count
        return found

    def _strangers(self, known: set[str]) -> list[Row]:
        return [row for row in self.rows if row["request_id"] not in known]

    # ---- one request

    def _of(self, account: Account) -> Findings:
        if account.hung:
            return ["hung"]
        if account.trouble:
            return [account.trouble]
        killed = any(kill.touches(account) for kill in self._kills)
        if account.manner in REFUSED_MANNERS:
            return self._of_refused(account, killed)
        rows, served = self._by_request[account.errand.request_id], self._served.get(account.errand.request_id, [])
        found = self._of_rows(account, rows, served)
        if not account.asked or not rows:
            if account.asked and not account.lost and account.manner not in LEAVING:
                found += self._of_unrecorded(account, killed)
            elif account.lost and not killed:
                found.append("the connection was lost")
            return found
        [row] = rows if len(rows) == 1 else [rows[0]]
        found += bounds(account, row, served)
        if killed and row["outcome"] == "drained":
            return found + _of_drained(account, row)
        if killed and (row["outcome"] == "recovered" or _broken(account)):
            return found + _of_killed(account, row)
        if account.manner in LEAVING:
            return found + _of_leaving(account, row)
        return found + _of_staying(account, row, served)

    def _of_refused(self, account: Account, killed: bool) -> Findings:
        if account.lost:
            return [] if killed else ["the connection was lost"]
        if killed and account.seen.status == 503:
            return []
        found = []
        if account.expected and account.seen.status not in account.expected:
            found.append(f"status {account.seen.status}, not {account.expected}")
        if account.closed is False:
            found.append("what followed was answered")
        if self._by_request[account.errand.request_id]:
            found.append("a row of what was refused")
        return found

    def _of_rows(self, account: Account, rows: list[Row], served: list[Served]) -> Findings:
        seen, found = account.seen, []
        if len(rows) > 1:
            found.append(f"{len(rows)} rows")
        if served and not rows:
            found.append("a backend was asked and there is no row")
        if seen.export_id and not any(row["export_id"] == seen.export_id for row in rows):
            found.append("an export id without its row")
        if not account.asked and rows:
            found.append("a row of what was not asked")
        return found

    def _of_unrecorded(self, account: Account, killed: bool) -> Findings:
        """Answered without a row: only where no backend was in service, or by a worker that was about to leave."""
        if (killed or account.errand.fate.ending is Ending.EITHER) and account.seen.status == 503:
            return []
        if account.seen.status == 408 and account.sending_s > SENDING_S_MAX:
            return []  # the machine was so busy that the visitor itself was too slow
        return [f"status {account.seen.status} and no row"]


def bounds(account: Account, row: Row, served: list[Served]) -> Findings:
    """received <= delivered <= generated <= written, and billed = delivered."""
    found = []
    delivered, billed, generated = row["delivered_tokens"], row["billed_output_tokens"], row["output_tokens"]
    written = sum(entry.tokens for entry in served)
    if billed != delivered or not 0 <= delivered <= generated:
        found.append(f"billed {billed}, delivered {delivered}, generated {generated}")
    if row["count_source"] != "estimated" and not received(account) <= delivered <= generated <= written:
        found.append(
            f"received {received(account)}, delivered {delivered}, generated {generated}, written {written}"
            f" ({row['count_source']}, {row['outcome']})"
        )
    return found


def received(account: Account) -> int:
    """Tokens that a client can have read."""
    if account.errand.fate.streamed:
        return account.seen.tokens
    answer = _answer(account)
    return sum(len(text.split()) for text in answer) if answer is not None and not account.lost else 0


def _answer(account: Account) -> list[str] | None:
    """The texts of a plain answer; None if it is none."""
    try:
        choices = json.loads(account.seen.body)["choices"]
        return [choice["message"]["content"] if "message" in choice else choice["text"] for choice in choices]
    except (ValueError, KeyError, TypeError):
        return None


def _broken(account: Account) -> bool:
    """Whether the answer ended in a way that no answer of ours ends in."""
    seen = account.seen
    if account.lost:
        return True
    if account.manner != "one_zero" or seen.status != 200:
        return False
    # Without chunks an end is an end: a killed worker's is told by what is missing.
    return not (seen.done or seen.error is not None) if account.errand.fate.streamed else _answer(account) is None


def _stale(entry: Served) -> bool:
    """Whether a connection that had served before ended without a byte: no attempt, but tried again on a fresh one."""
    return entry.ended == "dropped" or (entry.turn > 1 and not entry.bytes_written and entry.ended in ("fin", "reset"))


def _of_killed(account: Account, row: Row) -> Findings:
    found = []
    exact = row["count_source"] != "estimated"
    if exact and account.seen.looks_whole and row["delivered_tokens"] < received(account):
        found.append("a whole answer that is recovered with less")
    if row["outcome"] not in ("recovered", "completed", "client_gone", "drained", *account.errand.fate.outcomes):
        found.append(f"outcome {row['outcome']} of a killed worker's")
    return found


def _of_drained(account: Account, row: Row) -> Findings:
    """Ended by a worker whose supervisor was killed: with our error event, or with an error where nothing had come."""
    seen, found = account.seen, []
    if account.manner in LEAVING or _broken(account):
        return found
    if seen.looks_whole or row["status"] != seen.status:
        found.append(f"status {seen.status}, in the row {row['status']}; done {seen.done}")
    exact = row["count_source"] != "estimated"
    if account.errand.fate.streamed and exact and seen.error is not None and seen.tokens != row["delivered_tokens"]:
        found.append(f"received {seen.tokens} up to our error event, delivered {row['delivered_tokens']}")
    return found


def _of_leaving(account: Account, row: Row) -> Findings:
    found = []
    if row["outcome"] not in ("client_gone", "completed"):
        found.append(f"outcome {row['outcome']} of a client that left")
    if row["outcome"] == "client_gone" and row["status"] != 499:
        found.append(f"status {row['status']} of a client that left")
    if account.manner == "stalled" and (row["outcome"] == "completed" or account.seen.done):
        found.append("a reader that stopped was served to the end")
    return found


def _of_staying(account: Account, row: Row, served: list[Served]) -> Findings:
    fate, seen, found = account.errand.fate, account.seen, []
    if row["outcome"] not in fate.outcomes:
        found.append(f"outcome {row['outcome']}, not {fate.outcomes}")
    if seen.status not in fate.statuses or row["status"] != seen.status:
        found.append(f"status {seen.status}, in the row {row['status']}, not {fate.statuses}")
    if account.lost != (fate.ending is Ending.CUT and not fate.streamed):
        found.append(f"the connection was {'' if account.lost else 'not '}lost")
    ending = fate.ending
    if ending is Ending.EITHER:
        ending = Ending.WHOLE if row["outcome"] == "completed" else Ending.FAILED
    if ending is Ending.WHOLE:
        return found + _of_whole(account, row, served)
    if ending is Ending.CUT:
        return found + _of_cut(account, row, served)
    return found + _of_failed(account, row)


def _of_whole(account: Account, row: Row, served: list[Served]) -> Findings:
    fate, seen, found = account.errand.fate, account.seen, []
    tokens = fate.serving.tokens * fate.choices
    if fate.streamed:
        if not (seen.done and seen.framed and seen.error is None and seen.finishes == fate.choices):
            found.append(f"a whole answer that looks cut (done {seen.done}, finishes {seen.finishes}, {seen.error})")
        if len(seen.usages) != (1 if fate.include_usage else 0) and fate.scene != "running":
            found.append(f"{len(seen.usages)} usages were shown")
    elif _answer(account) != [fate.serving.answer()] * fate.choices:
        found.append("not the answer that the backend gave")
    if received(account) != tokens:
        found.append(f"received {received(account)} of {tokens}")
    exact = row["count_source"] != "estimated"
    if exact and not row["delivered_tokens"] == served[-1].tokens == tokens:
        found.append(f"delivered {row['delivered_tokens']} of {tokens} ({row['count_source']})")
    if fate.name != "lying usage" and row["count_source"] != "upstream":
        found.append(f"a true usage was not believed: {row['count_source']}, {row['count_flags']}")
    tried = sum(not _stale(entry) for entry in served) + (fate.scene == "half_dead")
    if row["attempts"] != tried:
        found.append(f"{row['attempts']} attempts in the row, {tried} at the backends")
    return found


def _of_cut(account: Account, row: Row, served: list[Served]) -> Findings:
    fate, seen, found = account.errand.fate, account.seen, []
    if fate.streamed:
        if seen.error is None or not seen.framed or seen.done or seen.finishes:
            found.append(f"a cut answer that does not say so (done {seen.done}, finishes {seen.finishes})")
        elif seen.error.get("code") != row["outcome"]:
            found.append(f"the error says {seen.error.get('code')}, the row {row['outcome']}")
        if row["count_source"] != "estimated" and not (
            seen.tokens == row["delivered_tokens"] == row["output_tokens"] == fate.content_tokens
        ):
            found.append(f"received {seen.tokens}, delivered {row['delivered_tokens']} of {fate.content_tokens}")
    elif _answer(account) is not None:
        found.append("a cut answer that looks whole")
    if row["attempts"] != 1 or sum(not _stale(entry) for entry in served) != 1:
        found.append("sent again after content")
    return found


def _of_failed(account: Account, row: Row) -> Findings:
    seen, found = account.seen, []
    if row["delivered_tokens"] or row["revenue_nano"] or seen.events:
        found.append(f"content of a failed answer: {row['delivered_tokens']}")
    try:
        error = json.loads(seen.body)["error"]
        if not {"message", "type", "code", "param"} <= error.keys():
            found.append(f"an error without its members: {error}")
    except (ValueError, KeyError, TypeError):
        found.append(f"no error: {seen.body[:200]!r}")
    if b"127.0.0.1" in seen.body or b"<h1>" in seen.body:
        found.append("the error names the backend")
    if seen.status == 503 and not seen.headers.get("retry-after", "").isdigit():
        found.append("503 without Retry-After")
    return found
