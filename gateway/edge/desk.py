"""What all exchanges of a worker share, and the little that is computed from it for one request."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from gateway.config import Limits, TenantSettings
from gateway.edge.admission import Admission
from gateway.edge.explaining import BYTES_PER_INPUT_TOKEN, REQUEST_OVERHEAD_BYTES
from gateway.edge.live import Live
from gateway.edge.locate import Destination, Locator
from gateway.edge.port import Port
from gateway.edge.tally import Tally
from gateway.ledger.board import Board
from gateway.ledger.export_id import ExportIds
from gateway.ledger.log import LogWriter
from gateway.telemetry import Counters
from gateway.wire.openai import RequestFacts
from routing.demand import Demand


@dataclass(slots=True)
class Desk:
    """A worker's services. All of them belong to the event loop's thread."""

    live: Live
    admission: Admission
    locator: Locator
    log: LogWriter
    board: Board
    counters: Counters
    tally: Tally
    port: Port
    ids: ExportIds
    now: Callable[[], float]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def limits(self) -> Limits:
        return self.port.limits

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task and hold it until it is done."""
        task = self.port.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def demand(
        self, facts: RequestFacts, body_bytes: int, tenant: TenantSettings, destination: Destination, dialect: str
    ) -> Demand:
        """What a request needs of a backend; input by the bytes per token learned for its model."""
        live = self.live
        per_token = live.input_bytes.predict(facts.model, BYTES_PER_INPUT_TOKEN)
        input_tokens = max(1, round(facts.prompt_bytes / per_token))
        return Demand(
            model=facts.model,
            tenant=tenant.name,
            input_tokens=input_tokens,
            output_tokens=live.lengths.predict(tenant.name, facts.model, input_tokens, facts.max_tokens, facts.choices),
            request_bytes=body_bytes + REQUEST_OVERHEAD_BYTES,
            max_tokens=facts.max_tokens,
            destination=destination.country,
            deny_origins=tenant.deny_origins,
            value_per_second=tenant.value_per_second,
            dialect=dialect,
            stream=facts.stream,
            choices=facts.choices,
        )
