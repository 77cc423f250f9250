"""`make focus`: our FOCUS export before the validator of the FinOps Foundation, where that is at hand.

FOCUS_VALIDATOR names its command: focus-validator 2.x in an environment of its own, because it needs Python 3.12 and
other versions than ours (`pip install 'focus-validator>=2,<3' 'pyarrow<24'`). Without it this says so and is no test.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gateway.ledger.focus import VIEWS, FocusTerms, focus_rows
from gateway.ledger.focus_columns import COLUMNS, NAMES, VERSION
from gateway.ledger.formats import write_csv
from gateway.ledger.parquet import write_parquet
from tests.ledger.test_focus import ledger_rows

# What we have, in its words: rules about conditional columns hold where these do.
SUPPORTED = (
    *("ACCOUNT_NAMING_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED"),
    *("MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED"),
    *("UNIT_PRICING_SUPPORTED", "SUB_ACCOUNT_SUPPORTED", "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED"),
    *("RESOURCE_TYPE_ASSIGNMENT_SUPPORTED", "REGION_SUPPORTED", "TAGGING_SUPPORTED"),
)
# It wants every InvoiceId both null and not null (rules C-004 and C-005), and cannot be content with any.
CONTRADICTORY = frozenset({"InvoiceId-C-005-C"})


def failures(validator: Path, path: Path) -> tuple[set[str], str]:
    """The rules that a file breaks, and the validator's line of totals."""
    command = [str(validator), "--data-file", str(path), "--validate-version", VERSION, "--block-download"]
    command += ["--applicability-criteria", ",".join(SUPPORTED)]
    # It finds its list of currencies relative to where it is installed.
    site = next(validator.parent.parent.glob("lib/python3*/site-packages"))
    said = subprocess.run(command, cwd=site, capture_output=True, text=True, timeout=300).stdout
    failed = {line.split()[1].rstrip(":") for line in said.splitlines() if line.startswith("❌")}
    totals = [line for line in said.splitlines() if line.startswith("Total:")]
    return failed, totals[0] if totals else "it said nothing"


def main() -> int:
    name = os.environ.get("FOCUS_VALIDATOR", "")
    if not name:
        print("focus: not run here: FOCUS_VALIDATOR does not say where focus-validator 2.x is")
        return 0
    broken: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="tokenport-focus-") as directory:
        for view in VIEWS:
            charges = list(focus_rows(ledger_rows(), FocusTerms("tokenport", view)))
            table, parquet = Path(directory) / f"{view}.csv", Path(directory) / f"{view}.parquet"
            with table.open("w", newline="") as text:
                write_csv(charges, text, NAMES)
            with parquet.open("wb") as binary:
                write_parquet(charges, binary, COLUMNS)
            for path in (table, parquet):
                failed, totals = failures(Path(name).absolute(), path)
                print(f"focus: {path.name}: {totals}")
                if not totals.startswith("Total:"):
                    failed = {f"{path.name} was not judged"}
                broken |= failed - CONTRADICTORY
    for rule in sorted(broken):
        print(f"focus: broken: {rule}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
