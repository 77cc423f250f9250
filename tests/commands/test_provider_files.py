"""Files of providers: understood as they are, or refused with what is needed; bad lines named, the rest compared."""

import pytest

from gateway.cli import main
from pricing.export import Usage
from tests.commands.provider_files import FILES, ROWS, as_csv, as_lines, attempts, bought, plain


@pytest.mark.parametrize("kind", FILES)
def test_a_file_as_a_provider_writes_it_is_understood_and_equals_ours(kind, ask):
    write, by, compared = FILES[kind]
    found = ask(write())
    assert (found["status"], found["by"], found["error"]) == (0, by, "")
    assert found["differences"] == found["unreadable"] == []
    assert compared <= set(found["totals"])
    expected = sum(each["input_tokens"] for each in attempts(ROWS))
    assert found["totals"]["input"] == {"ours": expected, "theirs": expected, "difference": 0}
    assert found["totals"]["requests"]["ours"] == len(ROWS)


@pytest.mark.parametrize("kind", FILES)
def test_one_token_less_than_ours_in_such_a_file_is_found(kind, ask):
    number = len(ROWS) - 1
    more = bought(number, usage=Usage(1000 + number, 100 + number, 10, 51 + number, 5))
    found = ask(FILES[kind][0](), rows=[*ROWS[:-1], more])
    assert found["status"] == 1
    assert [each["output_difference"] for each in found["differences"]] == [-1]
    assert found["totals"]["output"]["difference"] == -1


# ---- the user's own names


def test_columns_of_any_name_can_be_told(ask):
    theirs = [
        {"trace": each["request_id"], "in": each["prompt_tokens"], "out": each["completion_tokens"]} for each in plain()
    ]
    found = ask(as_csv(theirs), "--columns", "id=trace, input=in,output=out")
    assert found["status"] == 0 and found["totals"]["requests"]["theirs"] == 30


def test_a_column_can_be_left_out(ask):
    theirs = plain()
    theirs[0]["cached_tokens"] = 999
    assert ask(as_csv(theirs), "--columns", "cached=")["status"] == 0


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("a,b\n1,2\n", (), "no column for input (or fresh_input), output, id or time: name it with --columns"),
        ("a,b\n1,2\n", (), "the file has a, b"),
        ("id,prompt_tokens,input_tokens,output_tokens\nx,1,1,1\n", (), "input may be input_tokens or prompt_tokens"),
        ("id,output_tokens,output_tokens,input_tokens\nx,1,1,1\n", (), "output may be output_tokens or output_tokens"),
        ("request_id,input_tokens,output_tokens\nx,1,1\n", ("--columns", "inpt=b"), "inpt is none of ours: id, time,"),
        ("request_id,input_tokens,output_tokens\nx,1,1\n", ("--columns", "id=trace"), "trace is not in the file"),
        ("request_id,input_tokens,output_tokens\nx,1,1\n", ("--columns", "id"), "--columns id: write pairs"),
        ("request_id,input_tokens,output_tokens\nx,1,1\n", ("--by", "day"), "needs a column for time"),
        ("day,input_tokens,output_tokens\n2025-11-24,1,1\n", ("--by", "request"), "needs a column for id"),
        ("request_id,input_tokens,output_tokens\nx,1,1\n", ("--tolerance-tokens", "-1"), "not below 0"),
        ("request_id,input_tokens,output_tokens\n", (), "has no line of usage"),
        ("", (), "is empty"),
        ("\n \n", (), "is empty"),
        ('[{"a": 1}]', (), "is a JSON array: give one object a line, as jq -c '.[]' writes them"),
        ('{\n  "a": 1\n}\n', (), "line 1 is not JSON; one object a line is needed"),
        ("request_id,input_tokens\n".encode("utf-16"), (), "is not text in UTF-8"),
        ("request_id,input_tokens,output_tokens\nx,1,1\n", ("--from", "soon"), "--from soon: not a time"),
        ("request_id,input_tokens,output_tokens\nx,1,1\n", ("--backend", "nobody"), "it has bought-1, other"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_clear_line(content, options, said, run):
    status, out, error = run(content, *options)
    assert (status, out) == (2, "")
    assert said in error and error.count("\n") == 1


def test_a_file_that_is_not_there_is_named(config, capsys, tmp_path):
    assert main(["reconcile", *config, "--backend", "bought-1", str(tmp_path / "none.csv")]) == 2
    assert "none.csv: No such file or directory" in capsys.readouterr().err
    assert main(["reconcile", *config, "--backend", "bought-1", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err


# ---- lines that cannot be read

BAD_CSV = {
    "x,,1": "has no input",
    "x,1,ten": "output 'ten' is not a whole number",
    "x,1.5,1": "input '1.5' is not a whole number",
    "x,-1,1": "input '-1' is out of range",
    "x,9999999999999,1": "is out of range",
    "x,1,1,1": "has 4 fields, the header 3",
    ",1,1": "has no id",
    "x,nan,1": "is not a whole number",
    'x,"1"2,1': "expected after",
    "x,\u0663,": "has no output",
}


@pytest.mark.parametrize("bad", BAD_CSV)
def test_a_bad_line_of_csv_is_named_and_the_rest_is_compared(bad, ask):
    lines = as_csv(
        [{name: each[name] for name in ("request_id", "prompt_tokens", "completion_tokens")} for each in plain()]
    )
    head, *rest = lines.splitlines()
    found = ask("\n".join([head, *rest[:4], bad, *rest[4:]]))
    assert found["status"] == 1 and found["pairs"]["matched"] == 30
    (unreadable,) = found["unreadable"]
    assert unreadable["line"] == 6 and BAD_CSV[bad] in unreadable["problem"]
    assert "1 line of the file cannot be read" in found["error"]


BAD_JSON = {
    "{": "is not JSON",
    "17": "is no object",
    '{"request_id": "x", "prompt_tokens": NaN, "completion_tokens": 1}': "holds NaN",
    '{"request_id": "x", "prompt_tokens": true, "completion_tokens": 1}': "input 'True' is not a whole number",
    '{"request_id": "x", "prompt_tokens": 1}': "no column for output",
    '{"request_id": "x", "prompt_tokens": 1, "completion_tokens": 1, "created": "yesterday"}': "is not a time",
    '{"request_id": "x", "prompt_tokens": 1, "completion_tokens": 1, "created": 1e300}': "is not a time",
    '{"request_id": "x", "prompt_tokens": 1, "completion_tokens": 1, "cost": "much"}': "cost 'much' is not an amount",
    '{"data": [1]}': "that is no object",
    '{"data": [], "has_more": true}': "there are further pages",
    "[" * 100_000: "",
}


@pytest.mark.parametrize("bad", BAD_JSON, ids=range(len(BAD_JSON)))
def test_a_bad_line_of_json_is_named_and_the_rest_is_compared(bad, ask):
    lines = as_lines(plain()).splitlines()
    found = ask("\n".join([*lines[:4], bad, *lines[4:]]))
    assert found["status"] == 1 and found["pairs"]["matched"] == 30
    (unreadable,) = found["unreadable"]
    assert unreadable["line"] == 5 and BAD_JSON[bad] in unreadable["problem"]


def test_a_quote_that_is_not_closed_says_how_far_it_reached(ask):
    lines = as_csv(plain()).splitlines()
    found = ask("\n".join([*lines[:10], '"client-9,1,1,1', *lines[11:]]))
    (unreadable,) = found["unreadable"]
    assert unreadable["line"] == 11 and "as far as line 31: a quote that is not closed?" in unreadable["problem"]
    assert found["pairs"]["matched"] == 9 and found["pairs"]["only_ours"] == 21


def test_bytes_that_are_no_text_are_named_where_they_matter(ask):
    content = as_csv(plain()).encode()
    found = ask(content.replace(b"client-4,", b"client-\xff,"))
    assert [each["problem"] for each in found["unreadable"]] == ["id is not UTF-8"]
    assert found["unreadable"][0]["line"] == 6
