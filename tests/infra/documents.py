"""What the documents of the repository contain: code blocks, commands, links."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "gateway/README.md",
    "infra/README.md",
    "infra/closing.md",
    "infra/counts.md",
    "infra/runbook.md",
    "pricing/README.md",
    "routing/README.md",
)

_COMMAND = re.compile(r"(?:^|[`\s&])(?:\.venv/bin/)?tokenport ([a-z][^`#>|&\n]*)")


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def blocks(document: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(document), re.MULTILINE | re.DOTALL)


def code(text: str) -> list[str]:
    """Every line of code: in fenced and indented blocks, and between backticks."""
    fenced = [line for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()]
    indented = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [*fenced, *indented, *re.findall(r"`([^`\n]+)`", text)]


def commands(text: str) -> list[list[str]]:
    """Arguments of every `tokenport ...` command line in a text."""
    return [shlex.split(match[1]) for line in code(text) for match in _COMMAND.finditer(line)]


def links(text: str) -> list[str]:
    """Targets of links and pictures that lie in the repository."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def found(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of the first match; there must be one."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, pattern
    return match.groups()
