"""Configurations that are good, to be read as they are or with one thing spoilt."""

from collections.abc import Mapping
from pathlib import Path

from gateway.config import ConfigError, Settings, load_text

ENVIRON = {"GZ1_KEY": "sk-guizhou-secret", "SELLER_KEY": "sk-seller-secret", "ADMIN": "admin-secret", "EMPTY": ""}
KEY = "sha256:" + "0123456789abcdef" * 4
OTHER_KEY = "sha256:" + "f" * 64
PRICES = "utc_start,price_per_mwh\n2026-01-01T00:00:00Z,41.20\n2026-01-01T01:00:00Z,-3.05\n"

# The example of the reference, word for word but for the key's hash.
REFERENCE = f"""
[gateway]
listen = "127.0.0.1:8080"
workers = 1                          # 0: one per core
edge = "eu-edge"
data_dir = "var"
currency = "USD"
trusted_proxies = ["10.0.0.0/8"]
admin_listen = "127.0.0.1:8081"      # page, /metrics, /status; off loopback it needs admin_token_env
admin_token_env = ""
tls = {{ cert = "", key = "" }}
country_db = ""                      # default: the one that ships
destination_header = ""              # believed from trusted_proxies only

[limits]

[fx]                                 # gateway currency per unit
CNY = 0.139
EUR = 1.08

[regions.guizhou]
country = "CN"
power = {{ tariff = "guizhou" }}
pue = 1.2
carbon_g_per_kwh = 404
[regions.eu-edge]
country = "DE"

[tariffs.guizhou]                    # time of use
currency = "CNY"
timezone = "Asia/Shanghai"
price_per_mwh = 400.0
holidays = ["2026-10-01"]
periods = [{{ hours = "00-08", price_per_mwh = 260.0 }}]

[feeds.no2]
kind = "csv"
path = "prices.csv"                  # csv: header utc_start,price_per_mwh
currency = "EUR"
resolution_s = 3600

[[backends]]
name = "gz-1"
region = "guizhou"
url = "http://127.0.0.1:9001/v1"
api_key_env = "GZ1_KEY"
models = {{ "qwen3" = "Qwen/Qwen3-235B-A22B" }}        # public name = the backend's own name
slots = 64
prefill_tokens_per_s = 9000          # priors until measured
itl_ms = 26
joules_per_token = {{ prefill = 0.25, decode = 1.1 }}
queue_max = 64
dialects = ["openai"]                # openai | anthropic | responses
auth = "bearer"                      # bearer | x-api-key | none | {{ header = ".." }}
context_tokens = 131072
usage = "final"                      # final | continuous | none: what the backend reports while streaming
tokens_per_event_max = 4             # most tokens one content event may carry; 1: exactly one
ca_file = ""
power_cap_w = 0                      # here or on the region; 0: none

[[links]]
name = "gz-iepl"                     # several links may join the same two regions: each makes a route of its own
from = "guizhou"
to = "eu-edge"
rtt_ms = 187
billing = "per_gb"
price_per_gb = 0.12                  # GB = 1e9 bytes, both directions; HTTP heads and bodies, without TLS and TCP
currency = "USD"                     # default: the gateway's
transit = ["SG"]                     # countries passed; deny_origins covers them too
capacity_mbps = 500

[[routes]]                           # the route table: first match wins
model = "qwen3"
destinations = ["*"]                 # ISO 3166 countries
backends = ["gz-1"]                  # or regions = [...]
objective = "balanced"
ttft_slo_ms = 2000
deny_origins = []

[[tenants]]
name = "acme"
keys = ["{KEY}"]
tariff_per_mtok = {{ input = 0.30, cached_input = 0.03, output = 1.20 }}
budget = {{ tokens = 2_000_000_000, period = "year" }}
limits = {{ requests_per_minute = 0, tokens_per_minute = 0, streams = 0 }}   # 0: none
country = ""                         # the tenant's declared destination; beats the address
value_per_second = 2e-5
deny_origins = []                    # residency: fails closed
"""

# Everything once, each line only once, so that a test can spoil it by its text.
WHOLE = f"""
[gateway]
listen = "127.0.0.1:8080"
workers = 2
edge = "eu-edge"
data_dir = "var"
currency = "USD"
trusted_proxies = ["10.0.0.0/8"]
admin_listen = "127.0.0.1:8081"
destination_header = "cf-ipcountry"

[limits]
gap_s = 20

[fx]
CNY = 0.139
EUR = 1.08

[price_clock]
start = "2024-05-08T00:00:00Z"
speed = 600.0

[regions.guizhou]
country = "CN"
power = {{ tariff = "guizhou" }}
pue = 1.2
label = "simulated distance"
[regions.norway]
country = "NO"
power = {{ feed = "no2", adder_per_mwh = 15.0 }}
carbon_g_per_kwh = 34
[regions.seller]
country = "SG"
[regions.eu-edge]
country = "DE"
power = {{ price_per_mwh = 90.0, currency = "EUR" }}

[tariffs.guizhou]
currency = "CNY"
timezone = "Asia/Shanghai"
price_per_mwh = 400.0
holidays = ["2026-10-01"]
periods = [
    {{ hours = "00-08", price_per_mwh = 260.0 }},
    {{ hours = "18-21", days = "mon-fri", price_per_mwh = 600.0 }},
]

[feeds.no2]
kind = "csv"
path = "prices.csv"
currency = "EUR"
refresh_s = 60
fallback = "guizhou"

[[backends]]
name = "gz-1"
region = "guizhou"
url = "http://127.0.0.1:9001/v1"
api_key_env = "GZ1_KEY"
models = {{ "qwen3" = "Qwen/Qwen3-235B-A22B" }}
slots = 64
itl_ms = 26
joules_per_token = {{ prefill = 0.25, decode = 1.1 }}

[[backends]]
name = "no-1"
region = "norway"
url = "https://no-1.example/v1"
models = {{ "qwen3" = "qwen3-no", "llama" = "llama-3" }}
slots = 32
joules_per_token = {{ prefill = 0.2, decode = 1.0 }}

[[backends]]
name = "seller-1"
region = "seller"
url = "https://seller.example/v1"
api_key_env = "SELLER_KEY"
auth = {{ header = "Api-Key" }}
models = {{ "llama" = "llama-3-sold" }}
slots = 8
dialects = ["openai", "anthropic"]
price_per_mtok = {{ input = 2.0, output = 8.0, currency = "CNY", periods = [{{ hours = "00-09", multiplier = 0.5 }}] }}

[[links]]
name = "gz-leased"
from = "guizhou"
to = "eu-edge"
rtt_ms = 187
billing = "flat"
price_per_month = 6000
transit = ["HK"]

[[links]]
name = "no-line"
from = "norway"
to = "eu-edge"
rtt_ms = 23
billing = "p95"
price_per_mbps_month = 0.2
planned_mbps = 200

[[links]]
from = "seller"
to = "eu-edge"
rtt_ms = 157
billing = "per_gb"
price_per_gb = 0.02

[[routes]]
model = "qwen3"
destinations = ["DE", "FR"]
backends = ["gz-1", "no-1"]
objective = "cheapest"
ttft_slo_ms = 2000
deny_origins = ["SG"]

[[routes]]
model = "llama"
regions = ["norway", "seller"]
objective = {{ value_per_second = 2e-5 }}
first_content_s = 90

[[tenants]]
name = "acme"
keys = ["{KEY}"]
tariff_per_mtok = {{ input = 0.30, output = 1.20 }}
budget = {{ tokens = 2_000_000_000, period = "year" }}
limits = {{ requests_per_minute = 600 }}
country = "DE"

[[tenants]]
name = "globex"
keys = ["{OTHER_KEY}"]
deny_origins = ["CN"]

[[teams]]
tenant = "acme"
name = "search"
budget = {{ tokens = 1_000_000, period = "month" }}

[[users]]
team = "search"
name = "ada"
limits = {{ streams = 3 }}
"""


def read(text: str, directory: Path, environ: Mapping[str, str] = ENVIRON) -> Settings:
    """Settings of a text, with its price file beside it."""
    prices = directory / "prices.csv"
    if not prices.exists():
        prices.write_text(PRICES)
    return load_text(text, directory, environ)


def problems(text: str, directory: Path, environ: Mapping[str, str] = ENVIRON) -> tuple[str, ...]:
    """The mistakes in a text; none if it is good."""
    try:
        read(text, directory, environ)
    except ConfigError as error:
        return error.problems
    return ()


def spoilt(old: str, new: str) -> str:
    """WHOLE with one text replaced, which must stand in it exactly once."""
    assert WHOLE.count(old) == 1, old
    return WHOLE.replace(old, new)
