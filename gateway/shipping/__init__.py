"""Shipping: committed rows of the logs, delivered to other stores, in order and each once in effect.

    batch        what comes next of a log: pure but for reading the log itself
    cursor       what is kept beside the logs: how far each store has come, and the name of this gateway
    shipper      the loop of one store over all logs: next batch, deliver, advance; back-off; lag
    sinks        the stores there are: PostgreSQL, NATS JetStream, ClickHouse
    periods      hours, days, months of any time zone as bounds that a store can group by
    *_reader     the figures of a fleet, read back from a store

Three rules carry it:

- A log is read behind a mark and never beyond its head: what a power loss may take back is not shipped.
- The mark of what a store has taken is kept by the store, in the same step as the rows where it can do that. The file
  beside the logs is what retention goes by, and what is left where a store forgets.
- A row has one key for ever, its export id, and one `ended_at`: delivering it again changes nothing.

It runs in threads of the supervisor, one for each store: a server that hangs holds up its own thread, never a request.
"""
