"""A later version of the software: a copy of these sources in which one cost term more is settled and written down.

The changes are those that pricing/README.md asks for of whoever adds a term that is paid.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CHANGES = {
    "pricing/unit_prices.py": {
        "    output_nano_per_mtok: int = 0\n": "    output_nano_per_mtok: int = 0\n    water_nano_per_mtok: int = 0\n",
        '            "unit_output_nano_per_mtok": self.output_nano_per_mtok,\n': (
            '            "unit_output_nano_per_mtok": self.output_nano_per_mtok,\n'
            '            "unit_water_nano_per_mtok": self.water_nano_per_mtok,\n'
        ),
        '            output_nano_per_mtok=row["unit_output_nano_per_mtok"],\n': (
            '            output_nano_per_mtok=row["unit_output_nano_per_mtok"],\n'
            '            water_nano_per_mtok=row["unit_water_nano_per_mtok"],\n'
        ),
    },
    "pricing/export.py": {
        "    cost_link_nano: int\n": "    cost_link_nano: int\n    cost_water_nano: int\n",
        "self.cost_tokens_nano + self.cost_link_nano\n": (
            "self.cost_tokens_nano + self.cost_link_nano + self.cost_water_nano\n"
        ),
        "units.link_nano_per_gb, GB),\n": (
            "units.link_nano_per_gb, GB),\n"
            "        cost_water_nano=divide_half_even(usage.output_tokens * units.water_nano_per_mtok, MTOK),\n"
        ),
        '"cost_tokens_nano", "cost_link_nano")\n': '"cost_tokens_nano", "cost_link_nano", "cost_water_nano")\n',
        "_LATER: tuple[Column, ...] = ()\n": (
            '_LATER: tuple[Column, ...] = _columns("integer", "cost_water_nano unit_water_nano_per_mtok")\n'
        ),
    },
    "gateway/ledger/tables.py": {
        '"cost_link_nano", "cost_waste_nano", ': '"cost_link_nano", "cost_water_nano", "cost_waste_nano", ',
    },
    "gateway/ledger/segment.py": {"RECORD_VERSION = 1\n": "RECORD_VERSION = 2\n"},
}


def copy_sources(to: Path) -> None:
    """Write the later version's sources into a directory."""
    for package in ("pricing", "routing", "gateway"):
        for path in (ROOT / package).rglob("*.py"):
            copied = to / path.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
    for name, changes in CHANGES.items():
        text = (to / name).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, f"{name}: {old}"
            text = text.replace(old, new)
        (to / name).write_text(text)
    tests = to / "tests" / "ledger"
    tests.mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("exports.py"), tests / "exports.py")


def run(sources: Path, program: str, *arguments: str) -> str:
    """What a program prints that imports these sources."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
