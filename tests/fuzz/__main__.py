"""`make fuzz`: coverage-guided fuzzing of every parser, bounded in time, one process at a time.

Each harness starts from its kept inputs and goes on from what earlier runs found (in --directory). What fails is
written there as `NAME-crash-...` and printed as a line for `corpus/NAME.txt`, where it is a test from then on.
"""

import argparse
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.fuzz.inputs import kept
from tests.fuzz.test_kept import HARNESSES

INPUT_BYTES_MAX = 2048
RSS_MB_MAX = 2048
# A parser that takes a second for two kilobytes has hung.
INPUT_S_MAX = 10


def fuzz(name: str, seconds: int, directory: Path) -> list[Path]:
    """Run one harness for so long. Returns the inputs that failed."""
    corpus = directory / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(kept(name)):
        (corpus / f"kept-{number}").write_bytes(data)
    tokens = importlib.import_module(f"tests.fuzz.{name}").TOKENS
    dictionary = directory / f"{name}.tokens"
    dictionary.write_text("".join(map(_entry, tokens)))
    before = set(directory.glob(f"{name}-*"))
    options = {
        "max_total_time": seconds,
        "max_len": INPUT_BYTES_MAX,
        "timeout": INPUT_S_MAX,
        "rss_limit_mb": RSS_MB_MAX,
        "dict": dictionary,
        "artifact_prefix": f"{directory}/{name}-",
        "print_final_stats": 1,
        "verbosity": 1,
    }
    command = [sys.executable, "-m", "tests.fuzz.under_atheris", name, str(corpus)]
    command += [f"-{option}={value}" for option, value in options.items()]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    output = finished.stdout + finished.stderr
    executed = next((line.split()[-1] for line in output.splitlines() if "number_of_executed_units" in line), "?")
    failed = sorted(set(directory.glob(f"{name}-*")) - before)
    say(f"{name}: {executed} inputs in {seconds} s, {len(list(corpus.iterdir()))} kept, {len(failed)} failed")
    if finished.returncode and not failed:
        raise SystemExit(f"{name} ended with {finished.returncode}:\n{output[-4000:]}")
    if failed:
        print(output[-4000:], file=sys.stderr)
    return failed


def _entry(token: bytes) -> str:
    """A line of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n'


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all harnesses together")
    parser.add_argument("--only", choices=HARNESSES, help="one harness")
    parser.add_argument("--directory", type=Path, default=Path("var/fuzz"))
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        say("atheris is not installed: `make fuzz` does that, where it has a wheel")
        return 2
    names = [arguments.only] if arguments.only else HARNESSES
    each_s = max(1, arguments.seconds // len(names))
    failed = [path for name in names for path in fuzz(name, each_s, arguments.directory)]
    for path in failed:
        print(f"{path.name}\n{path.read_bytes()!r}")
    return 1 if failed else 0


def say(text: str) -> None:
    print(f"fuzz: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
