"""The admin port's doors and its answers for machines."""

import asyncio
import base64
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.admin.guard import OPEN
from gateway.admin.server import AdminServer
from gateway.control.sealing import SealsNow
from gateway.ledger.sealing import DamagedSegment
from tests.admin.conftest import Serve
from tests.admin.plane import TOKEN, Feed, Plane, backend, settings, status

BEARER = {"Authorization": f"Bearer {TOKEN}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def ask(client: ClientSession, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
    async with client.request(method, path, **options) as response:
        return response.status, await response.json()


async def status_of(client: ClientSession, path: str, method: str = "GET", **options: Any) -> int:
    async with client.request(method, path, **options) as response:
        await response.read()
        return response.status


@pytest.fixture
async def locked(serve: Serve, tmp_path: Path) -> ClientSession:
    """A client of an admin port that wants a token."""
    return await serve(Plane(settings(tmp_path, token=TOKEN)))


# ---- who may ask


async def test_every_endpoint_but_the_health_checks_wants_the_token(locked: ClientSession, plane: Plane) -> None:
    routes = [(route.method, route.path.replace("{name}", "page.css")) for route in AdminServer(plane).routes()]
    assert {path for _, path in routes} > set(OPEN)
    for method, path in routes:
        expected = 200 if path in OPEN else 401
        assert await status_of(locked, path, method) == expected, path
    assert await status_of(locked, "/nowhere") == 401


@pytest.mark.parametrize(
    "headers", [BEARER, basic("", TOKEN), basic("anybody", TOKEN), {"Authorization": f"bearer {TOKEN}"}]
)
async def test_the_token_opens_as_bearer_and_as_a_browsers_password(
    locked: ClientSession, headers: dict[str, str]
) -> None:
    assert await status_of(locked, "/", headers=headers) == 200
    assert await status_of(locked, "/metrics", headers=headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": TOKEN},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(TOKEN.encode()).decode()},
        basic(TOKEN, "wrong"),
        {"X-Api-Key": TOKEN},
    ],
)
async def test_anything_else_does_not(locked: ClientSession, headers: dict[str, str]) -> None:
    async with locked.get("/status", headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic ")
        assert TOKEN not in await response.text()


async def test_two_authorizations_are_none(locked: ClientSession) -> None:
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer wrong")]
    assert await status_of(locked, "/status", headers=headers) == 401


async def test_a_token_changed_by_a_reload_counts_at_once(serve: Serve, tmp_path: Path) -> None:
    plane = Plane(settings(tmp_path, token=TOKEN))
    client = await serve(plane)
    plane.settings = settings(tmp_path, token="another-one")
    assert await status_of(client, "/status", headers=BEARER) == 401
    assert await status_of(client, "/status", headers={"Authorization": "Bearer another-one"}) == 200


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1234", "127.0.0.1", "[::1]:80", "localhost."])
async def test_loopback_names_are_answered(admin: ClientSession, host: str) -> None:
    assert await status_of(admin, "/", headers={"Host": host}) == 200


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.rebound.example", "localhost.example:80", "[::2]", ""])
async def test_a_strangers_name_for_the_loopback_is_not(admin: ClientSession, host: str) -> None:
    code, answer = await ask(admin, "/", headers={"Host": host})
    assert code == 403 and "localhost" in answer["error"]


async def test_off_the_loopback_any_name_will_do_with_the_token(serve: Serve, tmp_path: Path) -> None:
    client = await serve(Plane(settings(tmp_path, token=TOKEN, listen="0.0.0.0:0")))
    assert await status_of(client, "/", headers={**BEARER, "Host": "gateway.example"}) == 200
    assert await status_of(client, "/", headers={"Host": "gateway.example"}) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://stranger.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
async def test_another_sites_page_cannot_reload_or_explain(
    admin: ClientSession, plane: Plane, headers: dict[str, str]
) -> None:
    assert await status_of(admin, "/reload", "POST", headers=headers) == 403
    assert await status_of(admin, "/explain", "POST", headers=headers, data=b"{}") == 403
    assert plane.asked == []


async def test_a_link_on_another_site_may_lead_to_the_page(admin: ClientSession) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert await status_of(admin, "/", headers=followed) == 200
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert await status_of(admin, "/status", headers=embedded) == 403


async def test_the_pages_own_requests_are_not_foreign(admin: ClientSession) -> None:
    own = {"Host": "localhost:1", "Origin": "http://localhost:1", "Sec-Fetch-Site": "same-origin"}
    assert await status_of(admin, "/reload", "POST", headers=own) == 200


@pytest.mark.parametrize("path", ["/", "/status", "/static/page.js", "/nowhere", "/healthz", "/metrics"])
async def test_every_answer_is_sealed(admin: ClientSession, path: str) -> None:
    async with admin.get(path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers.getall("Server") == ["tokenport"]


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e%2fserver.py", "/static/x", "/nowhere"])
async def test_what_is_not_there_is_a_404_in_json(admin: ClientSession, path: str) -> None:
    code, answer = await ask(admin, path)
    assert code == 404 and answer == {"error": "Not Found"}


async def test_a_wrong_method_names_the_right_one(admin: ClientSession) -> None:
    async with admin.get("/reload") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"


# ---- health


async def test_readiness_follows_the_gateway_and_liveness_does_not(serve: Serve, plane: Plane) -> None:
    client = await serve(plane)
    assert await status_of(client, "/readyz") == 200
    plane.ready = False
    assert await status_of(client, "/readyz") == 503
    assert await status_of(client, "/healthz") == 200


async def test_health_is_answered_under_any_name(locked: ClientSession) -> None:
    assert await status_of(locked, "/readyz", headers={"Host": "10.1.2.3"}) == 200


# ---- status, sums, explain, reload


async def test_status_tells_prices_in_the_gateways_currency_and_what_workers_do(serve: Serve, plane: Plane) -> None:
    away = backend("south-1", "south", available=False, barred="ejected", in_flight=3)
    plane.workers = [status(0, 100), status(1, 101, backends=[away]), None]
    _, told = await ask(await serve(plane), "/status")
    assert told["edge"] == "edge" and told["currency"] == "USD" and told["ready"] is True
    assert told["price_clock"]["replayed"] is True
    assert told["price_clock"]["now"].startswith("2024-05-06T10:30:")
    south = next(region for region in told["regions"] if region["name"] == "south")
    assert south["price_per_mwh"] == 56.0
    assert (south["zone"], south["quality"]) == ("south", "live")
    assert south["until"] == "2024-05-06T12:00:00.000000Z"
    assert next(region for region in told["regions"] if region["name"] == "shop")["price_per_mwh"] is None
    assert {link["name"]: link["marginal_per_gb"] for link in told["links"]} == {
        "south-edge": 0.12,
        "north-edge": 0.0,
        "shop-edge": 0.0,
    }
    merged = next(each for each in told["backends"] if each["name"] == "south-1")
    assert (merged["in_flight"], merged["available_in"], merged["workers"], merged["barred"]) == (4, 1, 2, ["ejected"])
    assert [worker["pid"] for worker in told["workers"]] == [100, 101]
    assert (told["ledger"]["writable"], told["ledger"]["problems"]) == (True, [])


async def test_status_and_metrics_tell_what_is_sealed_and_what_is_damaged(serve: Serve, plane: Plane) -> None:
    plane.seals.now = SealsNow(3, 9000, time.time() - 600, (DamagedSegment(0, 4, 17, "is not JSON"),), "disk full")
    client = await serve(plane)
    _, told = await ask(client, "/status")
    sealed = told["ledger"]["sealed"]
    assert sealed.pop("last_sealed_at").endswith("Z")
    assert sealed == {
        "segments": 3,
        "bytes": 9000,
        "damaged": [{"log": 0, "segment": 4, "line": 17, "problem": "is not JSON"}],
        "problem": "disk full",
    }
    async with client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(found["tokenport_sealed_segments"]) == 3
    assert float(found["tokenport_sealed_bytes"]) == 9000
    assert float(found["tokenport_damaged_segments"]) == 1
    assert 600 <= float(found["tokenport_seconds_since_last_seal"]) < 660


async def test_status_tells_of_a_feed_that_fails(serve: Serve, plane: Plane) -> None:
    plane.prices.feeds = {"nordic": Feed(None, "price 3: nan is not finite")}
    _, told = await ask(await serve(plane), "/status")
    assert told["feeds"] == [
        {"name": "nordic", "fetched_at": None, "age_s": None, "problem": "price 3: nan is not finite"}
    ]


async def test_export_volume_refuses_a_zone_that_does_not_exist(admin: ClientSession) -> None:
    code, _ = await ask(admin, "/export-volume.json?tz=Mars/Olympus")
    assert code == 400
    code, told = await ask(admin, "/export-volume.json?tz=Asia/Kolkata")
    assert code == 200 and len(told["hours"]) == 24 and told["lanes"] == []


async def test_explain_puts_the_demand_to_the_workers_and_hands_back_an_answer(serve: Serve, plane: Plane) -> None:
    plane.explanations = [None, {"route": "south-1/south-edge"}, {"route": "another"}]
    demand = {"model": "m", "input_tokens": 7}
    assert await ask(await serve(plane), "/explain", "POST", json=demand) == (200, {"route": "south-1/south-edge"})
    assert plane.asked == [("explain", {"demand": demand})]


async def test_explain_says_what_is_wrong_with_a_demand(serve: Serve, plane: Plane) -> None:
    plane.explanations = [{"error": "explain: model is missing."}]
    code, answer = await ask(await serve(plane), "/explain", "POST", json={})
    assert (code, answer) == (400, {"error": "explain: model is missing."})


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_explain_asks_nobody_about_what_is_no_object(admin: ClientSession, plane: Plane, body: bytes) -> None:
    code, _ = await ask(admin, "/explain", "POST", data=body)
    assert code == 400 and plane.asked == []


async def test_explain_without_workers_is_unavailable(admin: ClientSession) -> None:
    code, _ = await ask(admin, "/explain", "POST", json={"model": "m"})
    assert code == 503


async def test_a_body_beyond_the_bound_is_refused(admin: ClientSession, plane: Plane) -> None:
    code, _ = await ask(admin, "/explain", "POST", data=b" " * 70_000 + b"{}")
    assert code == 413 and plane.asked == []


async def test_a_reload_says_what_is_wrong_with_the_file(serve: Serve, plane: Plane) -> None:
    client = await serve(plane)
    assert await ask(client, "/reload", "POST") == (200, {"problems": []})
    plane.problems = ["gateway.edge: is missing"]
    assert await ask(client, "/reload", "POST") == (422, {"problems": ["gateway.edge: is missing"]})


async def test_a_failure_inside_is_logged_and_tells_nothing(
    serve: Serve, plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.workers = [{"log": 0}]
    code, answer = await ask(await serve(plane), "/status")
    assert code == 500 and "decisions" not in str(answer)
    (record,) = [record for record in caplog.records if record.name == "tokenport.admin"]
    assert record.exc_info and record.getMessage() == "request failed inside the gateway"


# ---- the socket


async def test_it_listens_on_the_socket_it_was_given_until_it_is_stopped(plane: Plane) -> None:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.setblocking(False)
    address = bound.getsockname()
    server = AdminServer(plane)
    assert server.address == ""
    await server.start(bound)
    assert server.address == f"127.0.0.1:{address[1]}"
    _, writer = await asyncio.open_connection(*address)
    writer.close()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    await server.stop()
