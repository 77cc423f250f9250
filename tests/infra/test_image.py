"""The image: what its file promises, as far as it can be told without building it."""

import json
import re
from fnmatch import fnmatch

import pytest

from tests.infra.documents import ROOT, found

DOCKER = ROOT / "infra" / "docker"
IMAGES = ("gateway", "model")
Step = tuple[str, str]


def read_stages() -> dict[str, tuple[str, list[Step]]]:
    """Stages by name: what each begins from, and its instructions."""
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    stages: dict[str, tuple[str, list[Step]]] = {}
    name = ""
    for line in re.sub(r"\\\n\s*", " ", lines).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, name = found(r"^(\S+) AS (\S+)$", rest)
            stages[name] = base, []
        elif word and stages:
            stages[name][1].append((word, rest.strip()))
    return stages


def argument(steps: list[Step], word: str) -> str:
    (rest,) = (rest for name, rest in steps if name == word)
    return rest


def port_of_health_check(steps: list[Step]) -> int:
    return int(found(r"HTTPConnection\('127\.0\.0\.1', (\d+)", argument(steps, "HEALTHCHECK"))[0])


def test_the_base_is_one_pinned_python_that_the_project_takes() -> None:
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    minor, rest = found(r"^ARG PYTHON_IMAGE=python:3\.(\d+)(\S+)$", text)
    assert int(minor) >= 11
    assert rest.startswith("-slim-")
    stages = read_stages()
    assert {base for base, _ in stages.values() if base not in stages} == {"${PYTHON_IMAGE}"}


def test_a_build_without_a_target_makes_the_gateway() -> None:
    assert list(read_stages())[-1] == "gateway"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_nothing_while_it_is_built_and_needs_no_shell(image: str) -> None:
    _, steps = read_stages()[image]
    assert not [rest for word, rest in steps if word in ("RUN", "SHELL", "ADD")]
    for word in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(part, str) for part in json.loads(argument(steps, word)))
    assert json.loads(argument(steps, "HEALTHCHECK").partition("CMD ")[2])[1] == "-c"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_not_roots_and_ends_by_sigterm(image: str) -> None:
    _, steps = read_stages()[image]
    user, group = argument(steps, "USER").split(":")
    assert int(user) > 0 and int(group) > 0
    assert argument(steps, "STOPSIGNAL") == "SIGTERM"
    assert str(port_of_health_check(steps)) in argument(steps, "EXPOSE").split()


def test_the_health_check_is_a_program_that_asks_for_readiness() -> None:
    _, steps = read_stages()["gateway"]
    interpreter, _, program = json.loads(argument(steps, "HEALTHCHECK").partition("CMD ")[2])
    assert interpreter == "/opt/tokenport/bin/python"
    compile(program, "HEALTHCHECK", "exec")
    assert "'/readyz'" in program


def test_whatever_is_installed_is_checked_by_hash() -> None:
    installs = [
        part
        for _, steps in read_stages().values()
        for word, rest in steps
        if word == "RUN"
        for part in rest.split(" && ")
        if re.search(r"pip install|uv build", part)
    ]
    assert len(installs) >= 5
    for install in installs:
        assert "--require-hashes" in install or "/dist/*.whl" in install, install


def test_the_packages_of_the_model_are_found_in_the_lock_file() -> None:
    (expression,) = re.findall(r"sed -n '/\^(\S+?)==/", (DOCKER / "Dockerfile").read_text("utf-8"))
    lock = (ROOT / "lock" / "development.txt").read_text("utf-8")
    assert len(re.findall(rf"^{expression}==\S+ \\\n(?:    --hash=sha256:\w+ ?\\?\n)+", lock, re.MULTILINE)) == 1


def test_all_that_is_copied_exists_and_may_be_seen_by_the_build() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    copied = [
        source.rstrip("/")
        for _, steps in read_stages().values()
        for word, rest in steps
        if word == "COPY" and "--from=" not in rest
        for source in rest.split()[:-1]
    ]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / path).exists() for path in allowed)
    assert any(fnmatch("gateway/__pycache__", line) for line in ignored if line.startswith("**"))


def test_stages_copy_only_from_stages_before_them() -> None:
    seen: list[str] = []
    for name, (base, steps) in read_stages().items():
        sources = re.findall(r"--from=(\S+)", " ".join(rest for word, rest in steps if word == "COPY"))
        assert all(source in seen for source in sources)
        assert base in seen or base.startswith("$")
        seen.append(name)
