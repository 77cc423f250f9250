"""What a good configuration means: values, units, defaults, places of files, credentials."""

import dataclasses
import os
from datetime import UTC, date, datetime
from ipaddress import ip_network

import pytest
import trustme

from gateway.config import Address, ConfigError, Limits, load_file, load_text
from gateway.config.sections_routes import SPOKEN
from gateway.config.settings import (
    BudgetSettings,
    ChargeSettings,
    EnergySettings,
    MultiplierSettings,
    ObjectiveSettings,
    PeriodSettings,
    PowerSettings,
    RateSettings,
    TeamSettings,
    UserSettings,
)
from gateway.edge.endpoints import API
from tests.config.configurations import ENVIRON, KEY, PRICES, REFERENCE, WHOLE, problems, read, spoilt

# The table of limits that operators are told about.
DEFAULT_LIMITS = {
    "head_bytes_max": 16 * 1024,
    "fields_max": 100,
    "line_bytes_max": 8190,
    "body_bytes_max": 16 * 1024**2,
    "bodies_bytes_max": 256 * 1024**2,
    "head_s": 10,
    "body_s": 30,
    "body_large_s": 120,
    "body_bytes_per_s_min": 64 * 1024,
    "idle_s": 75,
    "connect_s": 3,
    "spare_connections": 2,
    "first_content_s": 60,
    "gap_s": 30,
    "stream_s": 3600,
    "write_stall_s": 60,
    "buffer_bytes_high": 64 * 1024,
    "buffer_bytes_max": 384 * 1024,
    "event_bytes_max": 1024**2,
    "upstream_head_bytes_max": 32 * 1024,
    "bad_events_max": 3,
    "fair_share": True,
    "queue_slo_share": 1,
    "retry_share": 0.2,
    "retries_min": 32,
    "hedge_share": 0.05,
    "hedges_min": 2,
    "backoff_ms_max": 250,
    "eject_failures": 5,
    "eject_share": 0.5,
    "eject_s": 30,
    "eject_s_max": 300,
    "probe_s": 5,
    "slow_start_s": 10,
    "accept_s": 5,
    "drain_s": 120,
    "exit_s": 5,
    "connections_max": 10_000,
    "commit_rows_max": 256,
    "commit_ms": 5,
}
SMALL = '[gateway]\nedge = "e"\n[regions.e]\ncountry = "DE"\n'


def test_the_example_of_the_reference_loads(tmp_path):
    settings = read(REFERENCE, tmp_path, {"GZ1_KEY": "sk-1"})
    assert settings.gateway.edge == "eu-edge"
    assert settings.gateway.trusted_proxies == (ip_network("10.0.0.0/8"),)
    assert settings.fx == {"USD": 1.0, "CNY": 0.139, "EUR": 1.08}
    assert settings.regions["guizhou"].power == PowerSettings(tariff="guizhou", currency="USD")
    assert settings.regions["guizhou"].pue_milli == 1200
    assert settings.regions["guizhou"].carbon_g_per_kwh == 404
    assert settings.tariffs["guizhou"].periods == (PeriodSettings("00-08", 260.0),)
    assert settings.tariffs["guizhou"].holidays == {date(2026, 10, 1)}
    assert settings.feeds["no2"].path == tmp_path / "prices.csv"
    (backend,) = settings.backends
    assert backend.energy == EnergySettings(250, 1100)
    assert (backend.itl_s, backend.queue_max, backend.models) == (0.026, 64, {"qwen3": "Qwen/Qwen3-235B-A22B"})
    (link,) = settings.links
    assert (link.name, link.rtt_s, link.price_per_gb, link.transit) == ("gz-iepl", 0.187, 0.12, ("SG",))
    (rule,) = settings.rules
    assert (rule.destinations, rule.ttft_slo_s, rule.objective) == (("*",), 2.0, ObjectiveSettings("balanced"))
    (tenant,) = settings.tenants
    assert tenant.key_hashes == (KEY.removeprefix("sha256:"),)
    assert tenant.charge == ChargeSettings(300_000_000, 30_000_000, 1_200_000_000)
    assert tenant.budget == BudgetSettings(2_000_000_000, "year")
    assert tenant.value_per_second == 2e-5
    assert settings.limits == Limits()
    assert settings.notes == ()


def test_all_that_may_be_left_out_has_its_default(tmp_path):
    more = """
power = { price_per_mwh = 50 }
[regions.far]
country = "FR"
[[backends]]
name = "b"
region = "e"
url = "http://127.0.0.1:1/v1/"
models = { m = "m" }
slots = 7
joules_per_token = { prefill = 1, decode = 2 }
[[links]]
from = "far"
to = "e"
rtt_ms = 5
billing = "flat"
price_per_month = 1
[[routes]]
model = "m"
backends = ["b"]
[[tenants]]
name = "t"
"""
    settings = read(SMALL + more, tmp_path, {})
    gateway = settings.gateway
    assert gateway.listen == Address("127.0.0.1", 8080)
    assert gateway.admin_listen == Address("127.0.0.1", 8081)
    assert (gateway.workers, gateway.currency, gateway.data_dir) == (1, "USD", tmp_path / "var")
    assert (gateway.trusted_proxies, gateway.tls, gateway.country_db, gateway.admin_token) == ((), None, None, "")
    assert settings.price_clock is None
    region = settings.regions["far"]
    assert (region.pue_milli, region.carbon_g_per_kwh, region.power, region.label) == (1000, 0, None, "")
    (backend,) = settings.backends
    assert (backend.queue_max, backend.itl_s, backend.prefill_tokens_per_s) == (7, 0.03, 5000.0)
    assert (backend.usage, backend.tokens_per_event_max, backend.dialects) == ("final", 4, ("openai",))
    assert (backend.context_tokens, backend.url) == (131072, "http://127.0.0.1:1/v1")
    assert backend.credential() is None
    assert settings.links[0].name == "far-e"
    assert settings.links[0].currency == "USD"
    (rule,) = settings.rules
    assert (rule.objective.kind, rule.ttft_slo_s, rule.destinations) == ("balanced", None, ("*",))
    assert (rule.first_content_s, rule.gap_s, rule.stream_s) == (None, None, None)
    (tenant,) = settings.tenants
    assert (tenant.charge, tenant.budget, tenant.limits) == (ChargeSettings(), None, RateSettings())
    assert tenant.value_per_second == 0


def test_the_limits_have_the_defaults_that_are_documented():
    assert {spec.name: spec.default for spec in dataclasses.fields(Limits)} == DEFAULT_LIMITS


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("name", [name for name, default in DEFAULT_LIMITS.items() if default is not True])
def test_every_limit_can_be_set_alone(tmp_path, name, end):
    spec = {spec.name: spec for spec in dataclasses.fields(Limits)}[name]
    value = int(spec.metadata[end]) if spec.type is int else float(spec.metadata[end])
    found = getattr(read(f"{SMALL}[limits]\n{name} = {value}\n", tmp_path).limits, name)
    assert found == value
    assert type(found) is spec.type
    beyond = value - 1 if end == "low" else value + 1
    (line,) = problems(f"{SMALL}[limits]\n{name} = {beyond}\n", tmp_path)
    assert line.startswith(f"limits.{name}: ")


def test_fair_shares_can_be_switched_off_by_false_and_by_nothing_else(tmp_path):
    assert read(f"{SMALL}[limits]\nfair_share = false\n", tmp_path).limits.fair_share is False
    assert read(f"{SMALL}[limits]\nfair_share = true\n", tmp_path).limits.fair_share is True
    (line,) = problems(f"{SMALL}[limits]\nfair_share = 0\n", tmp_path)
    assert line.startswith("limits.fair_share: ") and "true or false" in line


def test_a_default_gives_way_to_a_limit_that_was_set(tmp_path):
    limits = read(f"{SMALL}[limits]\nstream_s = 20\nbody_bytes_max = {2**29}\n", tmp_path).limits
    assert (limits.first_content_s, limits.gap_s, limits.stream_s) == (20, 20, 20)
    assert limits.bodies_bytes_max == 2**29


def test_no_repr_shows_a_secret(tmp_path):
    text = spoilt('admin_listen = "127.0.0.1:8081"', 'admin_listen = "0.0.0.0:1"\nadmin_token_env = "ADMIN"')
    settings = read(text, tmp_path)
    assert settings.gateway.admin_token == "admin-secret"
    assert settings.backends[0].api_key == "sk-guizhou-secret"
    assert not any(value and value in repr(settings) for value in ENVIRON.values())


def test_a_credential_goes_into_the_header_that_auth_names(tmp_path):
    def credential(auth):
        settings = read(spoilt('api_key_env = "GZ1_KEY"', f'api_key_env = "GZ1_KEY"\nauth = {auth}'), tmp_path)
        return settings.backends[0].credential()

    assert credential('"bearer"') == ("authorization", "Bearer sk-guizhou-secret")
    assert credential('"x-api-key"') == ("x-api-key", "sk-guizhou-secret")
    assert credential('{ header = "X-Key" }') == ("x-key", "sk-guizhou-secret")
    assert credential('"none"') is None


@pytest.mark.parametrize("secret", [" key", "key\n", "schlüssel", "a\tb"])
def test_a_credential_that_no_header_can_carry_is_refused_without_being_shown(tmp_path, secret):
    (line,) = problems(REFERENCE, tmp_path, {"GZ1_KEY": secret})
    assert line.startswith("backends[0].api_key_env: ")
    assert secret not in line


@pytest.mark.parametrize(
    ("joules", "millijoules"),
    [("0.0005", 0), ("0.0015", 2), ("0.0025", 2), ("1", 1000), ("1.1", 1100), ("2.6755", 2676)],
)
def test_joules_become_millijoules_rounded_half_even_from_the_written_number(tmp_path, joules, millijoules):
    settings = read(spoilt("prefill = 0.25", f"prefill = {joules}"), tmp_path)
    assert settings.backends[0].energy == EnergySettings(millijoules, 1100)


def test_money_is_taken_as_written(tmp_path):
    text = spoilt("{ input = 0.30, output = 1.20 }", "{ input = 0.1, output = 1e-9 }")
    charge = read(text, tmp_path).tenants[0].charge
    assert charge == ChargeSettings(100_000_000, 100_000_000, 1)  # cached input costs what input does


def test_bought_tokens_default_to_the_price_of_fresh_input(tmp_path):
    tokens = read(WHOLE, tmp_path).backends[2].tokens
    assert tokens is not None
    assert (tokens.cached_input, tokens.cache_write, tokens.output, tokens.currency) == (2.0, 2.0, 8.0, "CNY")
    assert tokens.periods == (MultiplierSettings("00-09", 0.5),)


def test_a_rule_may_have_deadlines_and_a_value_of_its_own(tmp_path):
    rule = read(WHOLE, tmp_path).rules[1]
    assert rule.objective == ObjectiveSettings("value", 2e-5)
    assert (rule.first_content_s, rule.gap_s) == (90.0, None)


def test_teams_and_users_carry_limits_and_budgets(tmp_path):
    settings = read(WHOLE, tmp_path)
    assert settings.teams == (TeamSettings("acme", "search", budget=BudgetSettings(1_000_000, "month")),)
    assert settings.users == (UserSettings("search", "ada", limits=RateSettings(streams=3)),)


@pytest.mark.parametrize(
    "start", ['"2024-05-08T00:00:00Z"', "2024-05-08T02:00:00+02:00", '"2024-05-08T00:00:00+00:00"']
)
def test_a_price_clock_starts_where_it_says_and_runs_at_its_speed(tmp_path, start):
    clock = read(spoilt('start = "2024-05-08T00:00:00Z"', f"start = {start}"), tmp_path).price_clock
    assert clock is not None
    assert clock.start_at == datetime(2024, 5, 8, tzinfo=UTC).timestamp()
    assert clock.at(6.0) == clock.start_at + 3600


def test_relative_paths_start_at_the_directory_of_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "port.toml").write_text(REFERENCE)
    (folder / "prices.csv").write_text(PRICES)
    monkeypatch.chdir(tmp_path)
    settings = load_file((tmp_path / "etc/port.toml").relative_to(tmp_path), {"GZ1_KEY": "k"})
    assert settings.gateway.data_dir == folder / "var"
    assert settings.feeds["no2"].path == folder / "prices.csv"
    assert settings.directory == folder
    assert str(settings.source) == os.path.join("etc", "port.toml")


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "port.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load_file(path, {}).gateway.edge == "e"


@pytest.mark.parametrize(
    ("body", "start"), [(None, "{path}: cannot be read"), (b"[gateway]\n\xff", "line 2: is not UTF-8")]
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, body, start):
    path = tmp_path / "port.toml"
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(ConfigError) as caught:
        load_file(path, {})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(start.format(path=path))


def test_files_are_left_alone_by_who_takes_over_a_checked_configuration(tmp_path):
    settings = load_text(REFERENCE, tmp_path, {"GZ1_KEY": "k"}, files=False)
    assert settings.feeds["no2"].path == tmp_path / "prices.csv"
    with pytest.raises(ConfigError, match=r"feeds\.no2\.path"):
        load_text(REFERENCE, tmp_path, {"GZ1_KEY": "k"})


def test_a_certificate_with_its_key_is_taken_and_with_another_is_not(tmp_path):
    for name in ("a", "b"):
        issued = trustme.CA().issue_cert(f"{name}.example")
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    tls = read(spoilt("workers = 2", 'tls = { cert = "a.pem", key = "a.key" }'), tmp_path).gateway.tls
    assert tls is not None
    assert (tls.cert, tls.key) == (tmp_path / "a.pem", tmp_path / "a.key")
    (line,) = problems(spoilt("workers = 2", 'tls = { cert = "a.pem", key = "b.key" }'), tmp_path)
    assert line.startswith("gateway.tls.cert: ")


@pytest.mark.parametrize(
    ("listen", "address", "loopback"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080), True),
        ("[::1]:0", Address("::1", 0), True),
        ("localhost:80", Address("localhost", 80), True),
        ("0.0.0.0:443", Address("0.0.0.0", 443), False),
        ("[2001:db8::1]:443", Address("2001:db8::1", 443), False),
        ("port.example:443", Address("port.example", 443), False),
    ],
)
def test_an_address_knows_whether_others_can_reach_it(tmp_path, listen, address, loopback):
    found = read(spoilt('listen = "127.0.0.1:8080"', f'listen = "{listen}"'), tmp_path).gateway.listen
    assert found == address
    assert str(found) == listen
    assert found.loopback is loopback


def test_a_rule_that_is_never_reached_and_an_idle_backend_are_noted(tmp_path):
    text = spoilt('destinations = ["DE", "FR"]\nbackends = ["gz-1", "no-1"]', 'backends = ["no-1"]')
    text = text.replace("[[tenants]]", '[[routes]]\nmodel = "qwen3"\nbackends = ["no-1"]\n[[tenants]]', 1)
    assert {
        "routes[2]: is never reached, because routes[0] matches first",
        "backends[0]: no rule under [[routes]] leads to gz-1",
    } <= set(read(text, tmp_path).notes)


def test_a_backend_that_speaks_nothing_a_client_can_speak_here_is_noted(tmp_path):
    text = spoilt('dialects = ["openai", "anthropic"]', 'dialects = ["anthropic", "responses"]')
    notes = [note for note in read(text, tmp_path).notes if "nothing is sent" in note]
    assert notes == ["backends[2]: nothing is sent to seller-1; this gateway speaks openai"]
    assert not any("nothing is sent" in note for note in read(WHOLE, tmp_path).notes)


def test_what_the_notes_call_spoken_is_what_the_public_port_answers():
    assert set(SPOKEN) == {endpoint.dialect for endpoint in API.values()}
