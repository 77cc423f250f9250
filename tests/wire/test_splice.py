import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.splice import (
    DEPTH_MAX,
    LARGE_BYTES,
    MEMBERS_MAX,
    JsonMalformed,
    JsonOutOfBounds,
    Member,
    places,
    replace_members,
    top_level_members,
)
from tests.wire.documents import KEYS, VALUES, documents, objects, pairs

Document = tuple[list[tuple[str, Any]], bytes]


def keys(raw: bytes) -> list[str]:
    return [member.key for member in top_level_members(raw)]


def test_members_are_found_with_their_exact_places() -> None:
    raw = b' { "a" : [1, {"model": 2}] ,\n"b":"x" }'
    assert top_level_members(raw) == [Member("a", 3, 9, 26, 27), Member("b", 29, 33, 36, 37)]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"{}", []),
        (b" { } ", []),
        (b'{"model":"a","messages":[{"content":"\\",\\"model\\":\\"b"}]}', ["model", "messages"]),
        (b'{"mod\\u0065l":"a"}', ["model"]),
        (b'{"a":"\\\\","model":1}', ["a", "model"]),
        (b'{"a":"\\\\\\"","model":1}', ["a", "model"]),
        (b'{"a\\"b":1,"\\\\":2}', ['a"b', "\\"]),
        (b'{"a":1,"a":2}', ["a", "a"]),
        ('{"é":{"😀":[]}}'.encode(), ["é"]),
        (b'{"a":-1.5e+3,"b":true,"c":null}', ["a", "b", "c"]),
    ],
)
def test_keys_are_read_as_a_parser_reads_them(raw: bytes, expected: list[str]) -> None:
    assert keys(raw) == expected


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'"a"', b"1", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,}', b'{"a" 1}', b"{}x", b'{"a":[}']
)
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(JsonMalformed):
        top_level_members(raw)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_has_a_bound(opening: str, closing: str) -> None:
    def nested(levels: int) -> bytes:
        return ('{"x":' + opening * levels + "1" + closing * levels + ',"y":"[[["}').encode()

    assert keys(nested(DEPTH_MAX - 1)) == ["x", "y"]
    with pytest.raises(JsonOutOfBounds):
        top_level_members(nested(DEPTH_MAX))
    with pytest.raises(JsonOutOfBounds):
        top_level_members(nested(100_000))


def test_the_number_of_members_has_a_bound() -> None:
    def wide(count: int) -> bytes:
        return b"{" + b",".join([b'"a":1'] * count) + b"}"

    assert len(top_level_members(wide(MEMBERS_MAX))) == MEMBERS_MAX
    for count in (MEMBERS_MAX + 1, 1_000_000):
        with pytest.raises(JsonOutOfBounds):
            top_level_members(wide(count))


def test_brackets_in_strings_are_no_depth() -> None:
    assert keys(orjson.dumps({"a": "[" * 200, "b": ['\\"[' * 200]})) == ["a", "b"]


@given(documents())
def test_every_member_is_where_a_parser_finds_it(document: Document) -> None:
    members, raw = document
    found = top_level_members(raw)
    assert [(m.key, json.loads(raw[m.value_start : m.value_end])) for m in found] == members == pairs(raw)
    for number, member in enumerate(found, 1):
        key, length = json.JSONDecoder().raw_decode(raw[member.start :].decode())
        assert key == member.key
        assert raw[member.start :].decode()[length:].lstrip().startswith(":")
        assert raw[member.end : member.end + 1] == (b"," if number < len(found) else b"}")


ENDINGS = st.lists(st.sampled_from(['"', "\\", "a", "\n", "{", "é", "," * 2000, '"' * 30]), max_size=5).map("".join)


@given(st.lists(st.tuples(KEYS, ENDINGS, st.integers(0, 3000), VALUES), max_size=6), st.data())
def test_members_of_a_large_body_are_where_a_parser_finds_them(
    drawn: list[tuple[str, str, int, Any]], data: st.DataObject
) -> None:
    members = [("x" * LARGE_BYTES, 1), ("first", ["y" * LARGE_BYTES, '"\\'])]
    members += [(key, [ending + "z" * size + ending, value]) for key, ending, size, value in drawn]
    raw = data.draw(objects(data.draw(st.permutations(members)))).encode()
    found = top_level_members(raw)
    assert [(m.key, json.loads(raw[m.value_start : m.value_end])) for m in found] == pairs(raw)
    assert all(raw[m.start] == ord('"') and raw[m.end] in b",}" for m in found)


def test_a_string_that_ends_in_a_backslash_ends_there_in_a_large_body() -> None:
    raw = b'{"a":["' + b"z" * LARGE_BYTES + b'\\\\"],"b":["\\""],"model":1}'
    assert keys(raw) == ["a", "b", "model"]


@given(documents())
def test_the_places_of_chosen_keys_are_those_of_their_members(document: Document) -> None:
    members, raw = document
    keys = frozenset((b"model", b"usage", b""))
    found = places(raw, keys, len(members))
    if found is None:
        assert not members or b"\\" in raw
        return
    spans, end = found
    expected = top_level_members(raw)
    assert end == expected[-1].value_end
    assert spans == {m.key.encode(): (m.value_start, m.value_end) for m in expected if m.key.encode() in keys}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"\\u0061":1}',
        b'{"a":"\\\\"}',
        b'{"a":' + b"[" * DEPTH_MAX + b"1" + b"]" * DEPTH_MAX + b"}",
        b'{"a":"' + b"x" * LARGE_BYTES + b'"}',
        b"[1]",
        b"{}",
        b"",
    ],
)
def test_what_is_not_plain_has_no_places_at_once(raw: bytes) -> None:
    assert places(raw, frozenset((b"a",)), 1) is None


def test_too_many_members_have_no_places() -> None:
    raw = orjson.dumps({str(number): 1 for number in range(MEMBERS_MAX + 1)})
    assert places(raw, frozenset((b"1",)), MEMBERS_MAX + 1) is None


@given(documents(), st.sampled_from(["model", "stream", "usage", ""]))
def test_a_replaced_value_leaves_every_other_byte(document: Document, key: str) -> None:
    members, raw = document
    changed = replace_members(raw, {key: b'"new"'})
    rest = [each for each in members if each[0] != key]
    if len(rest) == len(members):
        assert pairs(changed) == [*members, (key, "new")]
        assert len(changed) == len(raw) + len(orjson.dumps(key)) + len(b':"new"') + bool(members)
        return
    assert pairs(changed) == [(name, "new" if name == key else content) for name, content in members]
    expected = raw
    for member in reversed(top_level_members(raw)):
        if member.key == key:
            expected = expected[: member.value_start] + b'"new"' + expected[member.value_end :]
    assert changed == expected


@given(documents(), st.sets(st.sampled_from(["model", "stream", "usage", ""]), min_size=1))
def test_a_removed_member_takes_nothing_else_with_it(document: Document, removed: set[str]) -> None:
    members, raw = document
    changed = replace_members(raw, {}, remove=removed)
    assert pairs(changed) == [(key, content) for key, content in members if key not in removed]
    kept = [raw[m.start : m.value_end] for m in top_level_members(raw) if m.key not in removed]
    assert [changed[m.start : m.value_end] for m in top_level_members(changed)] == kept
    if len(kept) == len(members):
        assert changed == raw


@given(documents())
def test_replacing_and_removing_at_once_is_both(document: Document) -> None:
    members, raw = document
    changed = pairs(replace_members(raw, {"model": b"1", "stream": b"2"}, remove=("usage",)))
    expected = [(key, {"model": 1, "stream": 2}.get(key, content)) for key, content in members if key != "usage"]
    expected += [(key, number) for key, number in (("model", 1), ("stream", 2)) if key not in dict(members)]
    assert changed == expected


@pytest.mark.parametrize(
    ("raw", "changed"),
    [
        (b'{"usage":1}', b"{}"),
        (b'{ "usage" : 1 }', b"{  }"),
        (b'{"a":1, "usage":2}', b'{"a":1}'),
        (b'{"usage":2 , "a":1}', b'{"a":1}'),
        (b'{"a":1,"usage":2,"b":3}', b'{"a":1,"b":3}'),
        (b'{"a":1,"usage":2,"usage":3 }', b'{"a":1 }'),
        (b'{"usage":1,"a":1,"usage":2}', b'{"a":1}'),
    ],
)
def test_removal_leaves_valid_json_without_a_spare_comma(raw: bytes, changed: bytes) -> None:
    assert replace_members(raw, {}, remove=("usage",)) == changed


@pytest.mark.parametrize("text", ["plain text. ", 'say \\"hi\\" ', "C:\\\\", "\\\\\\\\", "\\u00e9\\n", "é"])
def test_a_body_of_sixteen_megabytes_is_spliced_right(text: str) -> None:
    prompt = text * (16 * 1024 * 1024 // len(text.encode()))
    start = '{"messages":[{"role":"user","content":"' + prompt + '"}],'
    raw = (start + '"model":"a","n":1}').encode()
    assert replace_members(raw, {"model": b'"b"'}) == (start + '"model":"b","n":1}').encode()


def test_sixteen_megabytes_of_structure_are_spliced_right() -> None:
    for part in (b"[],", b'"",', b"12,", b'{"a":[{}]},'):
        start = b'{"x":[' + part * (16 * 1024 * 1024 // len(part)) + b"0],"
        assert replace_members(start + b'"model":1}', {"model": b"2"}) == start + b'"model":2}'


@given(st.binary(max_size=80))
def test_no_bytes_make_the_scan_fail_in_another_way(garbage: bytes) -> None:
    for raw in (garbage, b'{"a":' + garbage + b"}", b'{"a":"' + garbage + b'"}'):
        try:
            members = top_level_members(raw)
        except (JsonMalformed, JsonOutOfBounds):
            with pytest.raises(ValueError):
                _strictly_an_object(raw)
            continue
        assert all(member.start < member.value_start <= member.value_end <= member.end for member in members)


def _strictly_an_object(raw: bytes) -> None:
    if not isinstance(orjson.loads(raw), dict):
        raise ValueError("no object")
