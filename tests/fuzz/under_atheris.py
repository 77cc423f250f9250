"""One harness under atheris: `python -m tests.fuzz.under_atheris NAME CORPUS_DIR LIBFUZZER_OPTIONS...`.

atheris is no dependency of the tests: `make fuzz` installs it.
"""

import importlib
import sys

import atheris

NAME = sys.argv.pop(1)

# The gateway's modules count their branches; the fakes and the references do not.
with atheris.instrument_imports(include=["gateway"]):
    harness = importlib.import_module(f"tests.fuzz.{NAME}")

if __name__ == "__main__":
    atheris.Setup(sys.argv, harness.check)
    atheris.Fuzz()
