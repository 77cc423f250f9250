"""What the documents say can be done: examples load, commands and options exist, names are those of the code."""

import re
import struct
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from gateway import errors, telemetry
from gateway.cli import main
from gateway.config import load_text
from gateway.control.configuration import FIXED_GATEWAY, FIXED_LEDGER, FIXED_LIMITS
from gateway.telemetry import Metric
from gateway.wire import openai_usage
from gateway.wire.openai_answer import claims
from tests.infra.documents import DOCUMENTS, ROOT, blocks, code, commands, found, links, text_of

OPERATORS = ("README.md", "infra/README.md", "infra/closing.md", "infra/runbook.md")
PICTURE = ROOT / "infra" / "pictures"
METRICS = {metric.name for metric in vars(telemetry).values() if isinstance(metric, Metric)}


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_example_of_the_readme_is_a_good_configuration() -> None:
    (example,) = blocks("README.md", "toml")
    settings = load_text(example, ROOT, {})
    assert settings.notes == ()
    assert settings.gateway.listen.loopback and settings.gateway.admin_listen.loopback
    assert all(key.startswith("0" * 63) for tenant in settings.tenants for key in tenant.key_hashes)


def test_the_route_of_the_readme_example_changes_between_night_and_day_in_guizhou(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokenport.toml").write_text(blocks("README.md", "toml")[0].replace(":8081", ":1"))
    config = ["--config", str(tmp_path / "tokenport.toml")]

    def route_at(time: str) -> str:
        question = ["explain", *config, "--model", "qwen3", "--tenant", "acme", "--destination", "DE", "--at", time]
        assert main(question) == 0
        return found(r"^route: (\S+)", capsys.readouterr().out)[0]

    assert route_at("2026-11-24T20:00").startswith("guizhou-1/")
    assert route_at("2026-11-25T04:00").startswith("norway-1/")


def test_the_python_of_the_readme_compiles() -> None:
    for block in blocks("README.md", "python"):
        compile(block, "README.md", "exec")


def test_the_shell_of_the_readme_is_shell() -> None:
    for block in blocks("README.md", "sh"):
        done = subprocess.run(["sh", "-n"], input=block, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", OPERATORS)
def test_every_command_in_the_documents_exists_with_its_options(
    document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    helped: dict[str, str] = {}
    for command, *arguments in commands(text_of(document)):
        if command not in helped:
            helped[command] = help_of(capsys, command)
        for argument in arguments:
            name = argument.partition("=")[0]
            if name.startswith("--"):
                assert re.search(rf"(?<!\S){name}\b", helped[command]), (command, argument)
    if document == "README.md":
        assert {"serve", "check", "explain", "report", "export", "verify", "keys"} <= helped.keys()


def test_every_target_of_make_in_the_readme_exists() -> None:
    lines = code(text_of("README.md"))
    targets = {match[1] for line in lines if (match := re.match(r"make ([a-z]+)", line))}
    assert {"run", "test", "bench"} <= targets
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_link_leads_nowhere(document: str) -> None:
    for target in links(text_of(document)):
        path, _, section = target.partition("#")
        linked = (ROOT / document).parent.joinpath(path) if path else ROOT / document
        assert linked.exists(), target
        if section:
            titles = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
            assert section in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_every_room_of_the_gateway_stands_in_its_readme() -> None:
    described = text_of("gateway/README.md")
    for path in (ROOT / "gateway").iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"`{path.name}/`" in described, path.name
        elif path.suffix == ".py" and not path.name.startswith("__"):
            assert f"`{path.name}`" in described, path.name


def test_every_file_the_gateways_readme_names_is_there() -> None:
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|md|toml))`", text_of("gateway/README.md")):
        assert any((base / name).exists() for base in (ROOT, ROOT / "gateway")), name


def test_the_readme_stays_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 200


def test_metrics_of_the_runbook_are_those_of_the_gateway() -> None:
    named = set(re.findall(r"\btokenport_[a-z_]+", text_of("infra/runbook.md")))
    assert len(named) > 8
    assert named <= METRICS


def test_log_lines_of_the_runbook_stand_in_the_code() -> None:
    table = text_of("infra/runbook.md").partition("## Log lines")[2].partition("\n## ")[0]
    first = [line.split(" | ")[0] for line in table.splitlines()]
    told = [name.removesuffix(": ...") for cell in first for name in re.findall(r"`([^`]+)`", cell)]
    assert len(told) > 10
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    assert [line for line in told if f'"{line}' not in source] == []


def test_codes_of_the_runbook_stand_in_the_code() -> None:
    table = text_of("infra/runbook.md").partition("## What a caller is told")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    codes = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(codes) > 15
    sources = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "routing").glob("*.py")]
    source = "\n".join(path.read_text("utf-8") for path in sources)
    assert [each for each in codes if f'"{each}"' not in source] == []


def test_keys_that_need_a_restart_are_told_to_operators() -> None:
    fixed = [*FIXED_GATEWAY, *FIXED_LIMITS, *FIXED_LEDGER]
    reload = text_of("infra/runbook.md").partition("## Reload")[2].partition("\n## ")[0]
    listed = " ".join(line for line in reload.splitlines() if line.startswith(("- ", "  ")))
    assert sorted(set(re.findall(r"`([a-z_]+)`", listed))) == sorted(fixed)
    head = text_of("infra/config/reference.toml").partition("These keys need a restart:")[2].partition("\n\n")[0]
    told = re.sub(r"of \[\w+\]", "", head)
    assert sorted(re.findall(r"[a-z_]+", told)) == sorted(fixed)


def test_outcomes_of_the_runbook_are_those_of_the_gateway() -> None:
    text = text_of("infra/runbook.md")
    for failure in (errors.UpstreamCut, errors.UpstreamStall, errors.UpstreamErrorEvent, errors.UpstreamMalformed):
        assert f"`{failure.outcome}`" in text


def test_the_overview_is_a_picture_for_light_and_dark() -> None:
    picture = (PICTURE / "overview.svg").read_text("utf-8")
    tree = ElementTree.fromstring(picture)
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in picture
    # A picture is shown as an image: nothing in it may be fetched or run.
    assert not re.search(r"<script|<image|href=|url\(|@import|@font-face", picture)


def test_the_picture_of_the_page_is_small() -> None:
    path = PICTURE / "page.png"
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    assert 800 <= width <= 2000 and height <= 2000
    assert path.stat().st_size < 200_000


def test_commands_are_found_wherever_they_are_code() -> None:
    text = """
tokenport is a name here, and `tokenport keys new` a command.

    tokenport verify && .venv/bin/tokenport serve --config a.toml >> out.log

```sh
.venv/bin/tokenport export --format csv > november.csv   # comment
```
"""
    assert sorted(commands(text)) == [
        ["export", "--format", "csv"],
        ["keys", "new"],
        ["serve", "--config", "a.toml"],
        ["verify"],
    ]


def test_every_flag_of_a_count_is_documented_and_no_other() -> None:
    wrong: tuple[object, ...] = (None, -1, 0, "x", 10**13, 7)
    flags = {flag for value in (None, {}) for flag in claims(value).flags}
    for place, name in (
        ("", "prompt_tokens"),
        ("", "completion_tokens"),
        ("", "total_tokens"),
        ("prompt_tokens_details", "cached_tokens"),
        ("prompt_tokens_details", "cache_write_tokens"),
        ("completion_tokens_details", "reasoning_tokens"),
    ):
        for value in wrong:
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            flags |= set(claims(usage | ({place: {name: value}} if place else {name: value})).flags)
    flags |= {value for value in vars(openai_usage).values() if isinstance(value, str) and value.isidentifier()}
    flags -= {openai_usage.__name__}
    flags |= {"usage_implausible", "input_estimated", "board_lost"}
    table = text_of("infra/counts.md").partition("## What `count_flags` names")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(flags)
