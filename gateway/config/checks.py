"""What the sections of a configuration say about each other.

Each check blames the value that is easiest to mend, and says nothing where the cause is already reported: a name that
could not be read makes no dangling references.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial

import geoip2.database
import maxminddb

from gateway.config.build import FEED_BYTES_MAX, feed_curve, time_of_use, token_price
from gateway.config.draft import Draft
from gateway.config.reader import Table
from gateway.config.sections_routes import ANYWHERE, SPOKEN
from gateway.config.settings import (
    BackendSettings,
    FeedSettings,
    LinkSettings,
    RuleSettings,
)
from pricing.energy import PriceCurve
from pricing.transit import LOCAL_LINK


def names(draft: Draft) -> None:
    """Every name is given once. Links without one are called FROM-TO, so a second such link must be named."""
    settings = draft.settings
    _unique(draft, draft.backends, [backend.name for backend in settings.backends])
    _unique(draft, draft.tenants, [tenant.name for tenant in settings.tenants])
    _unique(draft, draft.teams, [team.name for team in settings.teams])
    _unique(draft, draft.users, [f"{user.team}/{user.name}" if user.name else "" for user in settings.users])
    _unique(draft, draft.sinks, [sink.name for sink in settings.sinks])
    unnamed: dict[tuple[str, str], Table] = {}
    for table, link in zip(draft.links, settings.links, strict=True):
        ends = (link.origin, link.edge)
        if table.has("name") or not all(ends):
            continue
        if ends in unnamed:
            text = f'is missing: {unnamed[ends].path} joins the same regions; add a name such as name = "{link.name}-2"'
            draft.problems.add(table.where("name"), text)
        unnamed.setdefault(ends, table)
    _unique(draft, draft.links, [link.name if all((link.origin, link.edge)) else "" for link in settings.links])
    for table, link in zip(draft.links, settings.links, strict=True):
        if link.name == LOCAL_LINK and link.origin != settings.gateway.edge:
            draft.problems.add(table.where("name"), f'"{LOCAL_LINK}" is the road inside the edge; choose another name')


def _unique(draft: Draft, tables: Sequence[Table], names: Iterable[str]) -> None:
    first: dict[str, Table] = {}
    for table, name in zip(tables, names, strict=True):
        if name and name in first:
            text = f'"{name.rpartition("/")[2]}" is already the name of {first[name].path}; choose another'
            table.complain("name", text)
        first.setdefault(name, table)


def places(draft: Draft) -> None:
    """Edge, regions, power: everything referred to is there, and power that is used has a price."""
    settings, problems = draft.settings, draft.problems
    regions, tariffs, feeds = list(settings.regions), list(settings.tariffs), list(settings.feeds)
    draft.refer(draft.gateway.where("edge"), settings.gateway.edge, "regions", regions, "region")
    for name, region in settings.regions.items():
        power = region.power
        if power is None:
            continue
        where = draft.regions[name].where("power")
        draft.refer(f"{where}.tariff", power.tariff, "tariffs", tariffs, "power tariff")
        found = draft.refer(f"{where}.feed", power.feed, "feeds", feeds, "feed")
        if found:
            _feed_can_be_silent(draft, settings.feeds[power.feed], name)
    for name, feed in settings.feeds.items():
        draft.refer(draft.feeds[name].where("fallback"), feed.fallback, "tariffs", tariffs, "power tariff")
    unpriced: dict[str, list[str]] = {}
    for table, backend in zip(draft.backends, settings.backends, strict=True):
        found = draft.refer(table.where("region"), backend.region, "regions", regions, "region")
        uses_power = backend.energy is not None and backend.tokens is None
        if found and uses_power and settings.regions[backend.region].power is None:
            unpriced.setdefault(backend.region, []).append(backend.name)
    for name, backends in unpriced.items():
        if not draft.regions[name].spoiled("power"):
            text = f"is missing, but {', '.join(backends)} there use power; add power = {{ price_per_mwh = 52.0 }}"
            problems.add(draft.regions[name].where("power"), text)


def _feed_can_be_silent(draft: Draft, feed: FeedSettings, region: str) -> None:
    """A URL may not answer when the gateway starts; without anything behind it the region would have no price."""
    table = draft.feeds[feed.name]
    if feed.url and not feed.fallback and not table.spoiled("fallback"):
        text = f"is missing: region {region} has no price while the url does not answer; name a power tariff"
        draft.problems.add(table.where("fallback"), text)


def periods(draft: Draft) -> None:
    """Periods can be read one by one, and no two of a tariff match the same hour."""
    for name, tariff in draft.settings.tariffs.items():
        table = draft.tariffs[name]
        where = table.where("periods")
        if draft.problems.blamed(table.where("timezone")) or draft.problems.blamed(where):
            continue
        for index, period in enumerate(tariff.periods):
            _blame(draft, f"{where}[{index}]", partial(time_of_use, replace(tariff, periods=(period,))))
        if not draft.problems.blamed(where):
            _blame(draft, where, partial(time_of_use, tariff))
    for table, backend in zip(draft.backends, draft.settings.backends, strict=True):
        tokens, where = backend.tokens, table.where("price_per_mtok")
        if tokens is None or draft.problems.blamed(where):
            continue
        for index, multiplier in enumerate(tokens.periods):
            _blame(draft, f"{where}.periods[{index}]", partial(token_price, replace(tokens, periods=(multiplier,))))
        if not draft.problems.blamed(where):
            _blame(draft, f"{where}.periods", partial(token_price, tokens))


def _blame(draft: Draft, path: str, build: Callable[[], object]) -> None:
    try:
        build()
    except ValueError as error:
        # What is built says its own name first, which the path says already.
        draft.problems.add(path, f"{re.sub('^tariff [^:]*: ', '', str(error))}; mend the period")


def feeds(draft: Draft) -> dict[str, PriceCurve]:
    """Files of prices hold prices. Gives their curves, to try the tables out with."""
    curves = {}
    for name, feed in draft.settings.feeds.items():
        where = draft.feeds[name].where("path")
        if feed.path is None or draft.problems.blamed(where):
            continue
        try:
            with feed.path.open("rb") as stream:
                body = stream.read(FEED_BYTES_MAX + 1)
            if len(body) > FEED_BYTES_MAX:
                raise ValueError(f"larger than {FEED_BYTES_MAX} bytes")
            curves[name] = feed_curve(feed, body, fetched_at=0.0)
        except OSError as error:
            draft.problems.add(where, f"{feed.path} cannot be read ({error.strerror}); make it readable")
        except ValueError as error:
            draft.problems.add(where, f"{feed.path.name}, {error}; mend the file")
    return curves


def links(draft: Draft) -> None:
    """Links lead from regions to the edge, and every backend elsewhere has one."""
    settings, problems = draft.settings, draft.problems
    edge, regions = settings.gateway.edge, list(settings.regions)
    edge_known = edge in regions
    complete = edge_known and not problems.unsure_of("links", name="")  # nothing refers to a link by its name
    for table, link in zip(draft.links, settings.links, strict=True):
        known = draft.refer(table.where("from"), link.origin, "regions", regions, "region")
        complete = complete and known
        if edge_known and link.edge and link.edge != edge:
            text = f'"{link.edge}" is not the edge of this gateway, so the link is never used; set to = "{edge}"'
            problems.add(table.where("to"), text)
    if complete:
        _linked(draft, edge, settings.links)


def _linked(draft: Draft, edge: str, links: Iterable[LinkSettings]) -> None:
    reached = {edge, *(link.origin for link in links)}
    for table, backend in zip(draft.backends, draft.settings.backends, strict=True):
        if backend.region in draft.settings.regions and backend.region not in reached:
            reached.add(backend.region)  # one missing link is one mistake, however many backends wait behind it
            text = f'no link leads from "{backend.region}" to the edge; add [[links]] with from = "{backend.region}"'
            draft.problems.add(table.where("region"), f'{text}, to = "{edge}", rtt_ms and billing')


def rules(draft: Draft) -> None:
    """Rules lead to backends that are there and offer the model."""
    offered = sorted({model for backend in draft.settings.backends for model in backend.models})
    unsure = draft.problems.unsure_of("backends") or any(table.spoiled("models") for table in draft.backends)
    for table, rule in zip(draft.rules, draft.settings.rules, strict=True):
        if rule.model and rule.model not in offered:
            if not unsure:
                near = get_close_matches(rule.model, offered, 1)
                hint = f"did you mean {near[0]}?" if near else "add it to the models of a backend"
                draft.problems.add(table.where("model"), f'no backend offers "{rule.model}"; {hint}')
            _rule_places(draft, table, rule, "")
        else:
            _rule_places(draft, table, rule, "" if unsure else rule.model)


def _rule_places(draft: Draft, table: Table, rule: RuleSettings, model: str) -> None:
    """The backends and regions of a rule; a model of "" is not looked for."""
    by_name = {backend.name: backend for backend in draft.settings.backends}
    for name in rule.backends:
        path = table.where_listed("backends", name)
        found = draft.refer(path, name, "backends", list(by_name), "backend")
        if found and model and model not in by_name[name].models:
            draft.problems.add(path, f'"{name}" does not offer "{model}"; add it to its models, or remove it here')
    for name in rule.regions:
        path = table.where_listed("regions", name)
        if draft.refer(path, name, "regions", list(draft.settings.regions), "region") and model:
            there = [backend for backend in by_name.values() if backend.region == name]
            astray = any(backend.region not in draft.settings.regions for backend in by_name.values())
            if not astray and not any(model in backend.models for backend in there):
                draft.problems.add(path, f'no backend in "{name}" offers "{model}"; add one, or remove the region here')


def tenants(draft: Draft) -> None:
    """A key belongs to one tenant; teams and users belong to somebody."""
    settings = draft.settings
    owners: dict[str, str] = {}
    for table, tenant in zip(draft.tenants, settings.tenants, strict=True):
        for index, key in enumerate(tenant.key_hashes):
            if owners.setdefault(key, table.path) != table.path:
                text = f"is the hash of a key of {owners[key]} as well; give every tenant keys of its own"
                draft.problems.add(f"{table.where('keys')}[{index}]", text)
    names = [tenant.name for tenant in settings.tenants]
    for table, team in zip(draft.teams, settings.teams, strict=True):
        draft.refer(table.where("tenant"), team.tenant, "tenants", names, "tenant")
    teams = [team.name for team in settings.teams]
    for table, user in zip(draft.users, settings.users, strict=True):
        draft.refer(table.where("team"), user.team, "teams", teams, "team")


def country_database(draft: Draft) -> None:
    """The country database has to open: a gateway that cannot place its clients serves nobody."""
    path = draft.settings.gateway.country_db
    if path is None or draft.problems.spoiled("gateway.country_db"):
        return
    try:
        geoip2.database.Reader(path).close()
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        draft.problems.add("gateway.country_db", f"cannot be used: {error}; give a MaxMind DB file of countries")


def notes(draft: Draft) -> tuple[str, ...]:
    """What is legal but probably not meant."""
    found = []
    settings = draft.settings
    for later, (table, rule) in enumerate(zip(draft.rules, settings.rules, strict=True)):
        for earlier in range(later):
            if _covers(settings.rules[earlier], rule):
                found.append(f"{table.path}: is never reached, because {draft.rules[earlier].path} matches first")
                break
    for table, backend in zip(draft.backends, settings.backends, strict=True):
        if not any(_leads_to(rule, backend) for rule in settings.rules):
            found.append(f"{table.path}: no rule under [[routes]] leads to {backend.name}")
        if not set(backend.dialects) & set(SPOKEN):
            found.append(f"{table.path}: nothing is sent to {backend.name}; this gateway speaks {', '.join(SPOKEN)}")
    if settings.teams or settings.users:
        found.append("teams, users: no key belongs to one yet, so their limits and budgets admit everything")
    return tuple(found)


def _covers(earlier: RuleSettings, later: RuleSettings) -> bool:
    if earlier.model != later.model:
        return False
    return ANYWHERE in earlier.destinations or set(later.destinations) <= set(earlier.destinations)


def _leads_to(rule: RuleSettings, backend: BackendSettings) -> bool:
    return rule.model in backend.models and (backend.name in rule.backends or backend.region in rule.regions)
