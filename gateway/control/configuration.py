"""The configuration in force, and the file it came from.

A reload validates first. What is in force changes only when the whole file is good and what may not change while
running (the sockets, the data directory, the edge) has not.
"""

from collections.abc import Mapping
from pathlib import Path

from gateway.config import ConfigError, Settings, load_text


class Configuration:
    """The last good reading of one file."""

    def __init__(self, source: Path, environ: Mapping[str, str]) -> None:
        """Read the file. Raises ConfigError with every problem in it."""
        self.source = source
        self.directory = source.parent.resolve()
        self.text, self._seen = self._read()
        self.settings: Settings = load_text(self.text, self.directory, environ)

    def changed_on_disk(self) -> bool:
        """Whether the file is another one than when it was last read, successfully or not."""
        return self._stamp() != self._seen

    def reload(self, environ: Mapping[str, str]) -> bool:
        """Read the file again. Returns whether anything changed.

        Raises:
            ConfigError: the file is bad or changes what needs a restart; the old configuration stays in force.
        """
        self._seen = self._stamp()
        text, self._seen = self._read()
        settings = load_text(text, self.directory, environ)
        fixed = _fixed(self.settings, settings)
        if fixed:
            raise ConfigError(fixed)
        changed = text != self.text
        self.text, self.settings = text, settings
        return changed

    def _read(self) -> tuple[str, tuple[int, int, int]]:
        stamp = self._stamp()
        try:
            return self.source.read_text(encoding="utf-8"), stamp
        except OSError as error:
            raise ConfigError((f"{self.source}: cannot be read: {error.strerror}; give --config FILE",)) from None
        except UnicodeDecodeError:
            raise ConfigError((f"{self.source}: is not UTF-8 text; save it as UTF-8",)) from None

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self.source.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_size, status.st_ino)


# What sockets, files and health records were made from. The runbook and the reference configuration list these keys.
FIXED_GATEWAY = ("edge", "data_dir", "listen", "workers", "currency", "admin_listen", "tls")
FIXED_LIMITS = (
    *("connections_max", "commit_rows_max", "commit_ms"),
    *("eject_failures", "eject_share", "eject_s", "eject_s_max", "probe_s", "slow_start_s"),
)
FIXED_LEDGER = ("segment_s", "segment_bytes_max")


def _fixed(old: Settings, new: Settings) -> tuple[str, ...]:
    parts = (
        ("gateway", old.gateway, new.gateway, FIXED_GATEWAY),
        ("limits", old.limits, new.limits, FIXED_LIMITS),
        ("ledger", old.ledger, new.ledger, FIXED_LEDGER),
    )
    return tuple(
        f"{section}.{name}: cannot change while the gateway runs; restart it"
        for section, before, after, names in parts
        for name in names
        if getattr(before, name) != getattr(after, name)
    )
