"""The Compose file and the configuration it mounts fit each other, the image, and the gateway's own limits."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.config import Settings, load_file
from tests.infra.documents import ROOT, found
from tests.infra.test_image import argument, port_of_health_check, read_stages

COMPOSE = ROOT / "infra" / "compose.yaml"
Document = dict[str, Any]

TOKEN = "TOKENPORT_ADMIN_TOKEN"
# The names of the Compose specification that this file uses, and those a typing mistake is most likely to miss.
TOP = {"name", "services", "networks", "volumes", "configs", "secrets"}
SERVICE = {
    *("image", "build", "command", "depends_on", "environment", "labels", "networks", "ports", "volumes", "restart"),
    *("read_only", "tmpfs", "cap_drop", "security_opt", "stdin_open", "stop_grace_period", "ulimits", "healthcheck"),
}


@pytest.fixture(scope="module")
def compose() -> Document:
    document: Document = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return document


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_file(ROOT / "infra" / "compose" / "tokenport.toml", {TOKEN: "secret"})


def regions(compose: Document) -> Document:
    return {name: service for name, service in compose["services"].items() if name != "gateway"}


def test_the_file_has_only_names_of_the_specification(compose: Document) -> None:
    assert {name for name in compose if not name.startswith("x-")} <= TOP
    for name, service in compose["services"].items():
        assert service.keys() <= SERVICE, name


def test_whatever_a_service_refers_to_is_there(compose: Document) -> None:
    for service in compose["services"].values():
        assert set(service["networks"]) <= compose["networks"].keys()
        assert set(service.get("depends_on", {})) <= compose["services"].keys()
        assert service["build"]["target"] in read_stages()
        context = COMPOSE.parent / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).exists()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (source.startswith("./") and (COMPOSE.parent / source).is_dir())


def test_the_configuration_is_good_and_mounted_where_the_image_looks(compose: Document, settings: Settings) -> None:
    assert settings.notes == ()
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["gateway"]["volumes"])
    _, steps = read_stages()["gateway"]
    environment = " ".join(rest for word, rest in steps if word == "ENV")
    config = Path(found(r"TOKENPORT_CONFIG=(\S+)", environment)[0])
    assert mounts["./compose"] == str(config.parent)
    assert settings.source is not None and settings.source.name == config.name
    assert mounts["ledger"] == str(settings.gateway.data_dir)
    assert f'["{settings.gateway.data_dir}"]' == argument(steps, "VOLUME")


def test_ports_are_published_on_this_machine_only_and_are_those_that_listen(
    compose: Document, settings: Settings
) -> None:
    published = [port.rsplit(":", 2) for port in compose["services"]["gateway"]["ports"]]
    assert {address for address, _, _ in published} == {"127.0.0.1"}
    listening = {settings.gateway.listen.port, settings.gateway.admin_listen.port}
    assert {int(inside) for _, _, inside in published} == listening
    _, steps = read_stages()["gateway"]
    assert port_of_health_check(steps) == settings.gateway.admin_listen.port


def test_the_admin_port_asks_for_a_token_without_which_nothing_starts(compose: Document, settings: Settings) -> None:
    assert settings.gateway.admin_token == "secret"
    assert compose["services"]["gateway"]["environment"][TOKEN].startswith(f"${{{TOKEN}:?")


def test_every_backend_is_a_service_of_its_region_on_its_port(compose: Document, settings: Settings) -> None:
    services = regions(compose)
    assert {backend.name for backend in settings.backends} == services.keys()
    for backend in settings.backends:
        service = services[backend.name]
        port = service["command"][service["command"].index("--port") + 1]
        assert backend.url == f"http://{backend.name}:{port}/v1"
        assert service["labels"]["tokenport.region"] == backend.region
        assert int(service["command"][service["command"].index("--slots") + 1]) == backend.slots
        assert set(service["networks"]) & set(compose["services"]["gateway"]["networks"])


def test_whoever_looks_is_told_what_is_not_real(compose: Document, settings: Settings) -> None:
    for service in regions(compose).values():
        assert "assumed" in service["labels"]["tokenport.what"]
    for backend in settings.backends:
        assert "assumed" in settings.regions[backend.region].label


def test_backends_reach_nothing_and_live_as_long_as_their_standard_input(compose: Document) -> None:
    assert compose["networks"]["regions"]["internal"] is True
    for service in regions(compose).values():
        assert service["networks"] == ["regions"]
        assert service["stdin_open"] is True
        assert "ports" not in service


def test_no_service_can_change_its_image_or_gain_rights(compose: Document) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_drain_gets_the_time_it_may_take(compose: Document, settings: Settings) -> None:
    grace_s = int(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    limits = settings.limits
    assert grace_s > limits.accept_s + limits.drain_s + limits.exit_s
