"""The configuration under test: everything on.

Sixteen backends in sixteen regions (all of them the one process of the bench), each behind a link that is paid by the
byte, half of them on time-of-use power tariffs, one on bought tokens; a tenant with rate limits and a budget, behind a
proxy that is trusted, so that its country comes from the address in a header; the objective that weighs time too.
"""

from collections.abc import Mapping
from typing import Any

from tests.bench.answers import KEY
from tests.fakes.configurations import Document, backend, document, per_gb, region, tenant

CANDIDATES = 16
MODEL = "large"
COUNTRIES = ("NO", "SE", "FI", "FR", "ES", "PT", "IT", "AT", "PL", "CZ", "DK", "NL", "BE", "IE", "IS", "CH")
MODELS = {MODEL: "bench/large-instruct"}
CONTEXT_TOKENS = 8_000_000  # room for a prompt as large as a body may be


def configuration(
    url: str,
    *,
    slots: int = 64,
    limits: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
) -> Document:
    """With all backends at one URL."""
    sites = [f"site-{n}" for n in range(CANDIDATES)]
    regions: dict[str, dict[str, Any]] = {}
    for n, (site, country) in enumerate(zip(sites, COUNTRIES, strict=True)):
        regions[site] = region(country, 30.0 + 2 * n, pue=1.1, carbon_g_per_kwh=100 + n)
        if n % 2:
            regions[site]["power"] = {"tariff": f"tariff-{n}"}
    tariffs = {
        f"tariff-{n}": {
            "currency": "USD",
            "timezone": "Europe/Oslo",
            "price_per_mwh": 60.0 + n,
            "periods": [{"hours": "22-06", "price_per_mwh": 30.0 + n}],
        }
        for n in range(1, CANDIDATES, 2)
    }
    backends = [
        backend(
            site,
            site,
            url,
            models=MODELS,
            slots=slots,
            queue_max=slots,
            context_tokens=CONTEXT_TOKENS,
            tokens_per_event_max=4,
            itl_ms=20,
        )
        for site in sites
    ]
    del backends[-1]["joules_per_token"]
    backends[-1]["price_per_mtok"] = {"input": 0.3, "cached_input": 0.03, "output": 1.2}
    rule = {"model": MODEL, "backends": sites, "objective": "balanced", "ttft_slo_ms": 2000}
    rates = {"requests_per_minute": 100_000_000, "tokens_per_minute": 1_000_000_000_000}
    customer = tenant(
        "acme",
        KEY,
        country="",
        limits=rates,
        budget={"tokens": 10**15, "period": "year"},
        value_per_second=2e-5,
    )
    content = document(
        backends,
        regions=regions,
        links=[per_gb(site, 0.02, rtt_ms=10 + n) for n, site in enumerate(sites)],
        routes=[rule],
        tenants=[customer],
        limits=limits,
        gateway={"trusted_proxies": ["127.0.0.1/32"], **(gateway or {})},
    )
    return {**content, "tariffs": tariffs}
