"""Every mistake is one line: where it is, what is wrong, how to mend it. Nothing else is reported with it."""

import pytest

from tests.config.configurations import ENVIRON, KEY, OTHER_KEY, WHOLE, problems, spoilt

# What is replaced in a good configuration, by what; the key path the line starts with; a word of the fix.
MISTAKES = [
    # keys and types
    ("slots = 64", "slots = -3", "backends[0].slots", "set slots to what the backend runs at once"),
    ("slots = 64", "slots = 64.5", "backends[0].slots", "whole number"),
    ("slots = 64", "slots = true", "backends[0].slots", "whole number"),
    ("slots = 64", 'slots = "64"', "backends[0].slots", "whole number"),
    ("slots = 64", "", "backends[0].slots", "add slots = 64"),
    ("slots = 64", "slot = 64", "backends[0].slot", "did you mean slots?"),
    ("itl_ms = 26", "itl_ms = 26\nqueue_maximum = 3", "backends[0].queue_maximum", "did you mean queue_max?"),
    ("itl_ms = 26", "itl_s = 0.026", "backends[0].itl_s", "did you mean itl_ms? (milliseconds)"),
    ("rtt_ms = 187", "rtt_s = 0.187", "links[0].rtt_s", "did you mean rtt_ms? (milliseconds)"),
    ("rtt_ms = 187", "rtt = 187", "links[0].rtt", "did you mean rtt_ms? (milliseconds)"),
    ("price_per_mwh = 400.0", "price_per_kwh = 0.4", "tariffs.guizhou.price_per_kwh", "did you mean price_per_mwh?"),
    ("price_per_mwh = 400.0", "price_per_mwh = nan", "tariffs.guizhou.price_per_mwh", "finite number"),
    ("price_per_mwh = 400.0", "price_per_mwh = -inf", "tariffs.guizhou.price_per_mwh", "finite number"),
    ("price_per_mwh = 400.0", "price_per_mwh = true", "tariffs.guizhou.price_per_mwh", "finite number"),
    ("price_per_mwh = 400.0", "price_per_mwh = 400_000", "tariffs.guizhou.price_per_mwh", "CNY per megawatt-hour"),
    ("workers = 2", "workers = -1", "gateway.workers", "0 starts one per core"),
    ("[limits]", "[limit]", "limit", "did you mean limits?"),
    ("[price_clock]", "[colour]\nred = 1\n[price_clock]", "colour", "nearest known key"),
    ("[limits]\ngap_s = 20", "[[limits]]", "limits", "must be a table"),
    ("[[users]]\nteam", "[users.ada]\nteam", "users", "each under [[users]]"),
    ('start = "2024-05-08T00:00:00Z"', 'start = "2024-05-08T00:00:00"', "price_clock.start", "its zone"),
    ('start = "2024-05-08T00:00:00Z"', "", "price_clock.start", "add start ="),
    ("speed = 600.0", "speed = 0", "price_clock.speed", "greater than 0"),
    # the gateway itself
    ('edge = "eu-edge"', 'edge = "eu-egde"', "gateway.edge", "did you mean eu-edge?"),
    ('edge = "eu-edge"', "", "gateway.edge", 'add edge = "eu-edge"'),
    ('listen = "127.0.0.1:8080"', 'listen = "127.0.0.1"', "gateway.listen", 'write it like "127.0.0.1:8080"'),
    ('listen = "127.0.0.1:8080"', 'listen = "127.0.1:8080"', "gateway.listen", "write it like"),
    ('listen = "127.0.0.1:8080"', 'listen = "::1:8080"', "gateway.listen", '"[::1]:8080"'),
    ('listen = "127.0.0.1:8080"', 'listen = "127.0.0.1:80800"', "gateway.listen", "write it like"),
    ('listen = "127.0.0.1:8080"', 'listen = "127.0.0.1:8081"', "gateway.admin_listen", "another one"),
    ('listen = "127.0.0.1:8080"', 'listen = "0.0.0.0:8081"', "gateway.admin_listen", "another one"),
    ('admin_listen = "127.0.0.1:8081"', 'admin_listen = "0.0.0.0:8081"', "gateway.admin_listen", "set admin_token_env"),
    ('trusted_proxies = ["10.0.0.0/8"]', 'trusted_proxies = ["10.0.0.1/8"]', "gateway.trusted_proxies[0]", "mask"),
    ('trusted_proxies = ["10.0.0.0/8"]', 'trusted_proxies = ["ten"]', "gateway.trusted_proxies[0]", '"10.0.0.0/8"'),
    ('trusted_proxies = ["10.0.0.0/8"]', "", "gateway.destination_header", "set that to its senders"),
    ('destination_header = "cf-ipcountry"', 'destination_header = "a b"', "gateway.destination_header", "cf-ipcountry"),
    ('data_dir = "var"', 'data_dir = "var"\ncountry_db = "none.mmdb"', "gateway.country_db", "directory of the config"),
    ('data_dir = "var"', 'data_dir = "var"\ntls = { cert = "prices.csv" }', "gateway.tls.cert", "add key ="),
    ('data_dir = "var"', 'tls = { cert = "prices.csv", key = "prices.csv" }', "gateway.tls.cert", "must be PEM"),
    ('currency = "USD"', 'currency = "usd"', "gateway.currency", 'for example "USD"'),
    # limits
    ("gap_s = 20", "gap_s = 0", "limits.gap_s", "of at least 0.01"),
    ("gap_s = 20", "gap_ms = 20000", "limits.gap_ms", "did you mean gap_s? (seconds)"),
    ("gap_s = 20", "body_bytes_max = 16.5", "limits.body_bytes_max", "whole number"),
    ("gap_s = 20", "retry_share = 20", "limits.retry_share", "of at most 1.0"),
    ("gap_s = 20", "gap_s = 20\nstream_s = 10", "limits.gap_s", "must not exceed stream_s"),
    # money
    ("CNY = 0.139", "", "tariffs.guizhou.currency", "under [fx]"),
    ("CNY = 0.139", "CNY = -0.139", "fx.CNY", "what one CNY is worth in USD"),
    ("CNY = 0.139", 'CNY = { feed = "ecb" }', "fx.CNY", "give the rate as a number"),
    ("CNY = 0.139", 'feed = "ecb"\nCNY = 0.139', "fx.feed", "cannot be fetched"),
    ("CNY = 0.139", "CNY = 0.139\nyuan = 0.139", "fx.yuan", "three capital letters"),
    ("CNY = 0.139", "CNY = 0.139\nUSD = 1.1", "fx.USD", "remove it"),
    # places and power
    ('country = "CN"', 'country = "CHN"', "regions.guizhou.country", "did you mean CN?"),
    ('country = "CN"', 'country = "cn"', "regions.guizhou.country", "did you mean CN?"),
    ('country = "CN"', "", "regions.guizhou.country", "add country ="),
    ("[regions.norway]", '[regions."nor way"]', 'regions."nor way"', "rename it"),
    ('power = { tariff = "guizhou" }', "", "regions.guizhou.power", "add power ="),
    ('power = { tariff = "guizhou" }', "power = {}", "regions.guizhou.power", "names no price"),
    ('power = { tariff = "guizhou" }', 'power = { tariff = "guizou" }', "regions.guizhou.power.tariff", "guizhou?"),
    ('{ tariff = "guizhou" }', '{ tariff = "guizhou", feed = "no2" }', "regions.guizhou.power", "keep one"),
    ('{ tariff = "guizhou" }', '{ tariff = "guizhou", currency = "EUR" }', "regions.guizhou.power.currency", "remove"),
    ('{ feed = "no2", adder', '{ feed = "no3", adder', "regions.norway.power.feed", "did you mean no2?"),
    ("pue = 1.2", "pue = 0.9", "regions.guizhou.pue", "such as 1.2"),
    ("carbon_g_per_kwh = 34", "carbon_g_per_kwh = -1", "regions.norway.carbon_g_per_kwh", "grams of CO2"),
    ("carbon_g_per_kwh = 34", 'carbon_g_per_kwh = { feed = "x" }', "regions.norway.carbon_g_per_kwh", "as a number"),
    ('label = "simulated distance"', f'label = "{"x" * 121}"', "regions.guizhou.label", "shorten"),
    ('timezone = "Asia/Shanghai"', 'timezone = "Asia/Guiyang"', "tariffs.guizhou.timezone", "Europe/Berlin"),
    ('hours = "18-21"', 'hours = "18-25"', "tariffs.guizhou.periods[1]", "mend the period"),
    ('days = "mon-fri"', 'days = "mon-fry"', "tariffs.guizhou.periods[1]", "mend the period"),
    ('hours = "18-21"', 'hours = "07-21"', "tariffs.guizhou.periods", "two periods match hour 07"),
    ('holidays = ["2026-10-01"]', 'holidays = ["2026-13-01"]', "tariffs.guizhou.holidays[0]", "a day, such as"),
    ('kind = "csv"', 'kind = "cvs"', "feeds.no2.kind", "did you mean csv?"),
    ('path = "prices.csv"', 'path = "price.csv"', "feeds.no2.path", "No such file"),
    ('path = "prices.csv"', "", "feeds.no2.path", 'add path = "prices.csv"'),
    ('path = "prices.csv"', 'path = "prices.csv"\nurl = "https://a.example/p.csv"', "feeds.no2.url", "keep one"),
    ('fallback = "guizhou"', 'fallback = "flat"', "feeds.no2.fallback", "define it"),
    (
        'path = "prices.csv"\ncurrency = "EUR"\nrefresh_s = 60\nfallback = "guizhou"',
        'url = "https://a.example/p.csv"\ncurrency = "EUR"',
        "feeds.no2.fallback",
        "name a power tariff",
    ),
    # backends
    ('name = "no-1"', 'name = "gz-1"', "backends[1].name", "choose another"),
    ('name = "no-1"', 'name = "no 1"', "backends[1].name", "letters, digits"),
    ('region = "norway"', 'region = "norvay"', "backends[1].region", "did you mean norway?"),
    ('url = "http://127.0.0.1:9001/v1"', 'url = "127.0.0.1:9001/v1"', "backends[0].url", "http or https URL"),
    ('url = "http://127.0.0.1:9001/v1"', 'url = "ftp://a.example"', "backends[0].url", "http or https URL"),
    ('url = "http://127.0.0.1:9001/v1"', 'url = "http://u:pw@a.example"', "backends[0].url", "user or password"),
    ('api_key_env = "GZ1_KEY"', 'api_key_env = "GZ2_KEY"', "backends[0].api_key_env", "export it"),
    ('api_key_env = "GZ1_KEY"', 'api_key_env = "EMPTY"', "backends[0].api_key_env", "is empty"),
    ('api_key_env = "GZ1_KEY"', 'api_key_env = "sk-secret"', "backends[0].api_key_env", "not the secret itself"),
    ('api_key_env = "GZ1_KEY"', 'api_key = "sk-secret"', "backends[0].api_key", "did you mean api_key_env?"),
    ('{ "qwen3" = "Qwen/Qwen3-235B-A22B" }', '["qwen3"]', "backends[0].models", "for example models ="),
    ('"llama" = "llama-3"', '"llama" = ""', "backends[1].models.llama", "for example llama"),
    ('"llama" = "llama-3"', f'"llama" = "{"x" * 129}"', "backends[1].models.llama", "128 printable"),
    ("joules_per_token = { prefill = 0.2, decode = 1.0 }", "", "backends[1].joules_per_token", "price_per_mtok"),
    ("{ prefill = 0.2, decode = 1.0 }", "{ prefill = 0.2 }", "backends[1].joules_per_token.decode", "add decode"),
    ("{ prefill = 0.2, decode = 1.0 }", "1.0", "backends[1].joules_per_token", "a table, such as"),
    (
        "slots = 8",
        "slots = 8\njoules_per_token = { prefill = 1, decode = 1 }",
        "backends[2].price_per_mtok",
        "keep the one",
    ),
    ("multiplier = 0.5", "multiplier = -1", "backends[2].price_per_mtok.periods[0].multiplier", "of at least 0"),
    ('hours = "00-09", mul', 'hours = "00-00", mul', "backends[2].price_per_mtok.periods[0]", "a whole day"),
    ("input = 2.0, output = 8.0", "output = 8.0", "backends[2].price_per_mtok.input", "add input"),
    (
        'dialects = ["openai", "anthropic"]',
        'dialects = ["openai", "claude"]',
        "backends[2].dialects[1]",
        "one of openai",
    ),
    ('auth = { header = "Api-Key" }', 'auth = "basic"', "backends[2].auth", "one of bearer"),
    ('auth = { header = "Api-Key" }', "auth = { name = 1 }", "backends[2].auth.name", "header"),
    ("slots = 32", 'slots = 32\nusage = "finale"', "backends[1].usage", "did you mean final?"),
    ("slots = 32", 'slots = 32\nca_file = "ca.pem"', "backends[1].ca_file", "cannot be read"),
    # links
    ('from = "norway"', 'from = "narnia"', "links[1].from", "define it"),
    ('to = "eu-edge"\nrtt_ms = 23', 'to = "guizhou"\nrtt_ms = 23', "links[1].to", 'set to = "eu-edge"'),
    ('name = "no-line"', 'name = "gz-leased"', "links[1].name", "choose another"),
    ('name = "no-line"', 'name = "local"', "links[1].name", "choose another name"),
    ('billing = "flat"', 'billing = "free"', "links[0].billing", "one of flat, per_gb, p95"),
    ("price_per_month = 6000", "", "links[0].price_per_month", "add price_per_month"),
    ("price_per_month = 6000", "price_per_month = 6000\nprice_per_gb = 1", "links[0].price_per_gb", "remove one"),
    ("planned_mbps = 200", "", "links[1].planned_mbps", "add planned_mbps"),
    ('transit = ["HK"]', 'transit = ["Hongkong"]', "links[0].transit[0]", "two capital letters"),
    # rules
    ('backends = ["gz-1", "no-1"]', 'backends = ["gz-1", "no-2"]', "routes[0].backends[1]", "did you mean no-1?"),
    ('backends = ["gz-1", "no-1"]', "", "routes[0].backends", "or regions ="),
    ('backends = ["gz-1", "no-1"]', 'backends = ["gz-1", "seller-1"]', "routes[0].backends[1]", "add it to its models"),
    (
        'regions = ["norway", "seller"]',
        'regions = ["norway", "sellar"]',
        "routes[1].regions[1]",
        "did you mean seller?",
    ),
    ('regions = ["norway", "seller"]', 'regions = ["guizhou"]', "routes[1].regions[0]", "add one"),
    ('model = "llama"', 'model = "lama"', "routes[1].model", "did you mean llama?"),
    ('objective = "cheapest"', 'objective = "cheep"', "routes[0].objective", "one of cheapest"),
    ("{ value_per_second = 2e-5 }", "{ value_per_hour = 1 }", "routes[1].objective.value_per_hour", "value_per_second"),
    ('destinations = ["DE", "FR"]', 'destinations = ["DE", "UK"]', "routes[0].destinations[1]", "did you mean GB?"),
    ('destinations = ["DE", "FR"]', 'destinations = "DE"', "routes[0].destinations", "a list of texts"),
    ('destinations = ["DE", "FR"]', 'destinations = ["DE", "DE"]', "routes[0].destinations[1]", "remove it"),
    ("first_content_s = 90", "first_content_s = 0", "routes[1].first_content_s", "greater than 0"),
    # tenants, teams, users
    (f'keys = ["{KEY}"]', 'keys = ["sk-secret"]', "tenants[0].keys[0]", "64 hex digits"),
    (OTHER_KEY, KEY, "tenants[1].keys[0]", "keys of its own"),
    ('name = "globex"', 'name = "acme"', "tenants[1].name", "choose another"),
    ('period = "year"', 'period = "week"', "tenants[0].budget.period", "one of day, month, year"),
    (
        "{ requests_per_minute = 600 }",
        "{ requests_per_second = 10 }",
        "tenants[0].limits.requests_per_second",
        "minute",
    ),
    ('deny_origins = ["CN"]', 'deny_origins = ["China"]', "tenants[1].deny_origins[0]", "ISO 3166"),
    ("{ input = 0.30, output = 1.20 }", "{ input = -0.3 }", "tenants[0].tariff_per_mtok.input", "of at least 0"),
    ('tenant = "acme"', 'tenant = "acne"', "teams[0].tenant", "did you mean acme?"),
    ('team = "search"', 'team = "serach"', "users[0].team", "did you mean search?"),
]


def test_the_configuration_that_is_spoilt_below_is_good(tmp_path):
    assert problems(WHOLE, tmp_path) == ()


@pytest.mark.parametrize(("old", "new", "path", "fix"), MISTAKES, ids=[f"{m[2]}: {m[3]}" for m in MISTAKES])
def test_a_mistake_is_one_line_with_its_place_and_its_fix(tmp_path, old, new, path, fix):
    text = spoilt(old, new)
    lines = problems(text, tmp_path)
    assert len(lines) == 1, "\n".join(lines)
    assert lines[0].startswith(f"{path}: ")
    assert fix in lines[0]
    assert "\n" not in lines[0]


def test_no_message_shows_a_secret(tmp_path):
    for old, new, _, _ in MISTAKES:
        for line in problems(spoilt(old, new), tmp_path):
            assert "sk-secret" not in line
            assert "u:pw" not in line
            assert not any(value in line for value in ENVIRON.values() if value)


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path):
    text = WHOLE.replace("slots = 64", "slots = -3").replace('team = "search"', "team = 3")
    text = text.replace('edge = "eu-edge"\ndata', 'edge = "eu-edge"\nworker = 2\ndata').replace("pue = 1.2", "pue = 0")
    assert [line.split(": ")[0] for line in problems(text, tmp_path)] == [
        "gateway.worker",
        "regions.guizhou.pue",
        "backends[0].slots",
        "users[0].team",
    ]


def test_a_line_ends_with_the_number_of_its_line(tmp_path):
    text = spoilt("slots = 64", "slots = -3")
    number = text.split("\n").index("slots = -3") + 1
    (line,) = problems(text, tmp_path)
    assert line.endswith(f"(line {number})")


def test_a_missing_key_is_reported_at_its_table(tmp_path):
    text = spoilt('url = "https://no-1.example/v1"\n', "")
    number = text.split("\n").index('name = "no-1"')
    (line,) = problems(text, tmp_path)
    assert line.startswith("backends[1].url: is missing")
    assert line.endswith(f"(line {number})")


def test_a_second_link_between_the_same_regions_needs_a_name(tmp_path):
    second = '\n[[links]]\nfrom = "seller"\nto = "eu-edge"\nrtt_ms = 99\nbilling = "per_gb"\nprice_per_gb = 0.01\n'
    (line,) = problems(WHOLE + second, tmp_path)
    assert line.startswith("links[3].name: ")
    assert "add a name" in line
    assert problems(WHOLE + second + 'name = "seller-2"\n', tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("[gateway\n", "line 1, column 9: "),
        ('[gateway]\nedge = "eu\n', "line 2, column 11: "),
        ("[gateway]\nedge = \n", "line 2, column 8: "),
        ("[gateway]\nedge = 'a'\nedge = 'b'\n", "line 3, column 11: "),
        ("a = 1\na.b = 2\n", "line 2, column 8: "),
        ('x = """\n\n', "line 1, column 8: "),
        ("x = " + "[" * 5000, "the file nests"),
        ("x = " + "9" * 5000, "the file is not valid TOML"),
    ],
)
def test_a_syntax_error_is_one_line_with_line_and_column(tmp_path, text, start):
    (line,) = problems(text, tmp_path)
    assert line.startswith(start)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ("utc_start,price_per_mwh\n2026-01-01T00:00:00Z,41.20\n2026-01-01T01:00:00Z,n/a\n", "line 3"),
        ("time,price\n2026-01-01T00:00:00Z,41.20\n", "header must be"),
        ("utc_start,price_per_mwh\n", "no prices"),
        ("utc_start,price_per_mwh\n2026-01-01T00:00:00Z,99999999\n", "outside"),
        ("utc_start,price_per_mwh\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:00Z,2\n", "duplicate start"),
    ],
)
def test_a_bad_price_file_is_a_mistake_of_its_feed(tmp_path, prices, words):
    (tmp_path / "prices.csv").write_text(prices)
    (line,) = problems(WHOLE, tmp_path)
    assert line.startswith("feeds.no2.path: prices.csv, ")
    assert words in line
    assert line.count("utc_start,price_per_mwh") == (words == "header must be"), "once, and only where it helps"


def test_a_region_needs_a_link_to_the_edge_once_however_many_backends_it_has(tmp_path):
    start = WHOLE.index('[[links]]\nname = "no-line"')
    text = WHOLE[:start] + WHOLE[WHOLE.index("[[links]]", start + 1) :]
    again = '\n[[backends]]\nname = "no-2"\nregion = "norway"\nurl = "http://a.example"\nslots = 1\n'
    again += 'models = { "qwen3" = "q" }\njoules_per_token = { prefill = 1, decode = 1 }\n'
    (line,) = problems(text + again, tmp_path)
    assert line.startswith("backends[1].region: ")
    assert 'add [[links]] with from = "norway", to = "eu-edge"' in line


def test_a_configuration_without_a_gateway_is_one_mistake(tmp_path):
    (line,) = problems("", tmp_path)
    assert line == 'gateway: is missing; add [gateway] with edge = "eu-edge"'


def test_what_a_file_holds_cannot_break_a_line(tmp_path):
    lines = problems(spoilt("[limits]", '[limits]\n"a\\nb\\u2028" = 1'), tmp_path)
    assert len(lines) == 1
    assert lines[0].isprintable()
