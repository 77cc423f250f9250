"""The export ledger: every token that crosses a border, written down exactly.

The truth is a log of JSON Lines per worker (`log`, `tail`, `segment`); the counts of live streams are in a mapped file
(`board`); after a crash `recovery` joins the two. `settlement` makes the rows. `index` and `reading` are views that can
be rebuilt from the logs at any time, and `verify` audits all of it.
"""
