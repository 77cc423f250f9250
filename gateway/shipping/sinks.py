"""The stores that rows can be shipped to. A new one is a file with a `Sink`, and a case here.

Their drivers are extras, imported only where one is configured.
"""

from gateway.config import SinkSettings
from gateway.shipping.shipper import Sink


def sink_of(settings: SinkSettings, gateway: str) -> Sink:
    """The way into a store, not connected yet."""
    match settings.kind:
        case "postgres":
            from gateway.shipping.postgres import PostgresSink

            return PostgresSink(settings.url, gateway, settings.table)
        case "nats":
            from gateway.shipping.jetstream import JetStreamSink

            return JetStreamSink(settings.url, gateway, settings.stream, settings.subject, settings.ca_file)
        case "clickhouse":
            from gateway.shipping.clickhouse import ClickHouseSink

            return ClickHouseSink(settings.url, gateway, settings.table, settings.ca_file)
    raise ValueError(f"no store of kind {settings.kind!r}")
