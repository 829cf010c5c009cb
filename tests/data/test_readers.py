"""Every format read, and every message that a malformed input gives."""

import json
import os
from pathlib import Path

import datasets
import pytest

from ivra.data import Row, fingerprint, label_names, read_rows
from ivra.errors import IvraError

GOOD = '{"id": "a", "text": "fine food", "label": "pos", "rationale": [[0, 4]]}'
PAIR = (
    '{"premise": "a dog", "hypothesis": "a cat", "label": 2, '
    '"rationale": {"premise": [[2, 5]], "hypothesis": []}}'
)


def write(tmp_path: Path, content: str | bytes, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def message(path: Path | str, split: str | None = None, **columns: str) -> str:
    with pytest.raises(IvraError) as caught:
        read_rows(path, split, **columns)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_jsonl_rows_keep_id_text_label_rationale_and_place(tmp_path: Path) -> None:
    path = write(tmp_path, f"{GOOD}\n\n{PAIR}\r\n")
    assert read_rows(path) == [
        Row("a", ("fine food",), "pos", (((0, 4),),), f"{path}:1"),
        Row(f"{path}:3", ("a dog", "a cat"), "2", (((2, 5),), ()), f"{path}:3"),
    ]


def test_label_and_rationale_may_be_missing_and_an_empty_rationale_is_not_missing(
    tmp_path: Path,
) -> None:
    rows = read_rows(write(tmp_path, '{"text": "a"}\n{"text": "b", "rationale": []}'))
    assert [row.label for row in rows] == [None, None]
    assert [row.rationale for row in rows] == [None, ((),)]


@pytest.mark.parametrize(("label", "name"), [('"x"', "x"), ("3", "3"), ("true", "True")])
def test_labels_become_strings(tmp_path: Path, label: str, name: str) -> None:
    assert read_rows(write(tmp_path, f'{{"text": "a", "label": {label}}}'))[0].label == name


def test_spans_are_sorted_and_distinct(tmp_path: Path) -> None:
    line = '{"text": "abcdef", "rationale": [[3, 4], [0, 2], [3, 4]]}'
    assert read_rows(write(tmp_path, line))[0].rationale == (((0, 2), (3, 4)),)


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    assert read_rows(write(tmp_path, '{"text": "a\u2028b"}'))[0].texts == ("a\u2028b",)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, name: str) -> None:
    content = '{"text": "a"}' if name.endswith("jsonl") else "text\na"
    assert read_rows(write(tmp_path, b"\xef\xbb\xbf" + content.encode(), name))[0].texts == ("a",)


def test_csv_and_tsv(tmp_path: Path) -> None:
    comma = write(tmp_path, 'text,label,rationale\r\n"a, b",pos,"[[0, 1]]"\r\nc,,\r\n', "r.csv")
    assert read_rows(comma) == [
        Row(f"{comma}:2", ("a, b",), "pos", (((0, 1),),), f"{comma}:2"),
        Row(f"{comma}:3", ("c",), None, None, f"{comma}:3"),
    ]
    tab = write(tmp_path, "premise\thypothesis\tlabel\na\tb\tno\n", "r.tsv")
    assert read_rows(tab)[0] == Row(f"{tab}:2", ("a", "b"), "no", None, f"{tab}:2")


def test_a_csv_row_over_two_lines_is_placed_at_its_first(tmp_path: Path) -> None:
    path = write(tmp_path, 'text\n"a\nb"\nc\n', "r.csv")
    assert [row.where for row in read_rows(path)] == [f"{path}:2", f"{path}:4"]


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_columns_can_be_named_in_any_format(tmp_path: Path, name: str) -> None:
    record = {"q": "one", "r": "two", "y": "no"}
    table = ",".join(record) + "\n" + ",".join(record.values())
    path = write(tmp_path, json.dumps(record) if name == "r.jsonl" else table, name)
    row = read_rows(path, text_column="q", pair_column="r", label_column="y")[0]
    assert (row.texts, row.label) == (("one", "two"), "no")


def test_a_directory_and_the_built_in_set_are_read_by_split(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "dev.jsonl")
    assert read_rows(tmp_path, "dev")[0].id == "a"
    assert len(read_rows("builtin", "dev")) == 400


BAD_LINES = {
    "{": "expected one JSON object a line, got bad JSON at column 2: "
    "Expecting property name enclosed in double quotes.",
    "[1]": "expected a JSON object {...}, got [1].",
    '{"body": "a", "id": 1}': "expected a field 'text', or 'premise' and 'hypothesis', or "
    "'question' and 'context'; the fields are: body, id. Rename one, or name it with text_column "
    "and pair_column.",
    "{}": "expected a field 'text', or 'premise' and 'hypothesis', or 'question' and 'context'; "
    "the fields are: none. Rename one, or name it with text_column and pair_column.",
    '{"text": 5}': "expected 'text' to be a string, got 5.",
    '{"text": ""}': "'text' is empty; fill it in or remove the row.",
    '{"text": " \\n"}': "'text' is empty; fill it in or remove the row.",
    '{"premise": "a", "hypothesis": null}': "expected 'hypothesis' to be a string, got None.",
    '{"text": "\\ud800"}': "'text' has half of a surrogate pair at character 0, which is not "
    "valid Unicode; remove it or write the whole character.",
    '{"text": "a", "label": 0.5}': "expected 'label' to be a string, a whole number or "
    "true/false, got 0.5.",
    '{"text": "a", "id": [1]}': "expected 'id' to be a string, a whole number or true/false, "
    "got [1].",
    '{"text": "abc", "rationale": [[1, 4]]}': "rationale span [1, 4] does not fit 'text', which "
    "has 3 characters; need 0 <= start < end <= 3.",
    '{"text": "abc", "rationale": [[2, 2]]}': "rationale span [2, 2] does not fit 'text', which "
    "has 3 characters; need 0 <= start < end <= 3.",
    '{"text": "abc", "rationale": [[0, 1.0]]}': "expected each rationale span of 'text' to be a "
    "pair of whole numbers [start, end], got [0, 1.0].",
    '{"text": "abc", "rationale": [[0, true]]}': "expected each rationale span of 'text' to be "
    "a pair of whole numbers [start, end], got [0, True].",
    '{"text": "abc", "rationale": [0, 1]}': "expected each rationale span of 'text' to be a "
    "pair of whole numbers [start, end], got 0.",
    '{"text": "abc", "rationale": {"text": []}}': "expected the rationale of 'text' to be a "
    "list of [start, end] pairs, got {'text': []}.",
    '{"text": "abc", "rationale": "prose"}': "expected 'rationale' to be a list of "
    "[start, end] pairs, got 'prose'; rename the column if it means something else.",
    '{"premise": "a", "hypothesis": "b", "rationale": []}': "expected 'rationale' to be an "
    "object with a list of spans for each of 'premise', 'hypothesis', got [].",
    '{"question": " ", "context": "b"}': "'question' is empty; fill it in or remove the row.",
    '{"question": "a", "context": "b", "answers": 3}': "expected 'answers' to be a list of "
    'objects {"text", "start"}, got 3.',
    '{"question": "a", "context": "b", "answers": [{"text": "b"}]}': "expected each answer to be "
    "an object with a string 'text' and a whole number 'start', got {'text': 'b'}.",
    '{"question": "a", "context": "b", "answers": [{"text": "b", "start": true}]}': "expected each "
    "answer to be an object with a string 'text' and a whole number 'start', got {'text': 'b', "
    "'start': True}.",
    '{"question": "a", "context": "b", "answers": [{"text": " ", "start": 0}]}': "the text of an "
    "answer is empty; remove the answer.",
    '{"question": "a", "context": "b c", "answers": [{"text": "c", "start": 0}]}': "the answer 'c' "
    "does not stand at its start 0 of 'context', where 'b' is; count Unicode code points from 0.",
    '{"question": "a", "context": "b c", "answers": [{"text": "c", "start": -1}]}': "the answer "
    "'c' does not stand at its start -1 of 'context', where '' is; count Unicode code points from "
    "0.",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_with_what_was_expected(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f'{{"text": "fine"}}\n{line}\n')
    assert message(path) == f"{path}:2: {BAD_LINES[line]}"


def test_absurd_json_is_an_ordinary_error(tmp_path: Path) -> None:
    assert ":1: cannot read this JSON" in message(write(tmp_path, "[" * 100_000))
    assert ":1: cannot read this JSON" in message(write(tmp_path, '{"text": ' + "9" * 5000 + "}"))


@pytest.mark.parametrize("source", ["gone.jsonl", "./gone", "/gone/away", "~/gone", "x/y.CSV"])
def test_a_missing_path_is_not_looked_up_on_the_hub(source: str) -> None:
    assert message(source, "train") == f"{source}: no such file or directory."


def test_other_suffixes(tmp_path: Path) -> None:
    path = write(tmp_path, "x", "rows.xlsx")
    assert message(path) == (
        f"{path}: cannot read files ending in '.xlsx'; expected one of .jsonl, .json-lines, "
        f".jsonlines, .csv, .tsv."
    )


def test_splits(tmp_path: Path) -> None:
    assert message(tmp_path, "dev") == (
        f"{tmp_path}: expected a directory holding train.jsonl, dev.jsonl or test.jsonl, found "
        f"none of them."
    )
    path = write(tmp_path, GOOD, "test.jsonl")
    assert message(tmp_path) == f"which split of '{tmp_path}'? Choose from: test."
    assert message(tmp_path, "dev") == (
        f"{tmp_path}: no split 'dev' in it, only test; add it, or name other rows "
        f"(--eval-data when training, --split or --data after)."
    )
    assert message(path, "test") == (
        f"{path}: a single file has no split 'test'; leave the split out, or give a directory "
        f"holding train.jsonl, dev.jsonl and test.jsonl."
    )
    assert message("builtin") == "which split of 'builtin'? Choose from: train, dev, test."


def test_the_built_in_set_takes_no_columns() -> None:
    assert message("builtin", "dev", text_column="x") == (
        "the built-in data set has fixed columns; leave the column flags out."
    )


@pytest.mark.parametrize(("name", "content"), [("r.jsonl", "\n \n"), ("r.csv", "text,label\n")])
def test_empty_files(tmp_path: Path, name: str, content: str) -> None:
    for text in ("", content):
        path = write(tmp_path, text, name)
        assert message(path) == f"{path}: no rows in it; expected at least one."


def test_bad_utf8_is_placed(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"text": "a"}\n{"text": "caf\xe9"}\n')
    assert message(path) == (
        f"{path}:2: expected UTF-8, got the byte 0xe9; save the file as UTF-8."
    )


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_utf16_and_nul_bytes_are_placed(tmp_path: Path, name: str) -> None:
    text = f"{GOOD}\n{GOOD}\n" if name.endswith("jsonl") else "text,label\na,b\n"
    path = write(tmp_path, text.encode("utf-16"), name)
    assert message(path) == (
        f"{path}:1: expected UTF-8, got the byte 0xff, with which UTF-16 begins; save the file "
        f"as UTF-8."
    )
    nul = (
        "expected UTF-8, got a NUL byte, as UTF-16 and damaged files have; save the file as UTF-8."
    )
    for encoding in ("utf-16-le", "utf-16-be"):
        assert message(write(tmp_path, text.encode(encoding), name)) == f"{path}:1: {nul}"
    for damage in ("\0", "\n\0\0", "a\0b,c\n"):
        line = text.count("\n") + 1 + damage.startswith("\n")
        assert message(write(tmp_path, text + damage, name)) == f"{path}:{line}: {nul}"


def test_a_nul_written_as_json_is_text(tmp_path: Path) -> None:
    assert read_rows(write(tmp_path, '{"text": "a\\u0000b"}'))[0].texts == ("a\0b",)


def test_no_name_and_no_file(tmp_path: Path) -> None:
    for source in ("", " "):
        assert message(source, "train") == (
            "no data named: expected a file, a folder, a hub data set or 'builtin'."
        )
    os.mkfifo(tmp_path / "pipe")
    assert message(tmp_path / "pipe") == (
        f"{tmp_path / 'pipe'}: no regular file or folder; expected one of the two."
    )


def test_a_cell_that_is_longer_than_the_csv_module_reads(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\n" + "a " * 70_000 + ",b\n", "r.csv")
    assert message(path) == (
        f"{path}:2: bad quoting: field larger than field limit (131072); put texts as long as "
        f"this into JSON Lines, or close the quote."
    )


def test_duplicate_ids_name_both_places(tmp_path: Path) -> None:
    path = write(tmp_path, f"{GOOD}\n{GOOD}")
    assert message(path) == (
        f"{path}:2: the id 'a' stands already at {path}:1; ids must differ, or be left out."
    )


def test_malformed_tables(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\na,b\na,b,c\n", "r.csv")
    assert message(path) == (
        f"{path}:3: expected 2 columns (text, label), got 3; quote fields that hold the "
        f"separator or a line break."
    )
    path = write(tmp_path, "text,text\na,b\n", "r.csv")
    assert message(path) == f"{path}:1: the column 'text' stands twice in the header."
    path = write(tmp_path, 'text,label\n"a" b,c\n', "r.csv")
    assert message(path) == (
        f"{path}:2: bad quoting: ',' expected after '\"'; write a quote inside a field twice, "
        f"and quote the whole field."
    )
    path = write(tmp_path, "text,rationale\nabc,0-1\n", "r.csv")
    assert message(path) == (
        f"{path}:2: expected 'rationale' to be a list of [start, end] pairs, got '0-1'; rename "
        f"the column if it means something else."
    )


def test_unknown_columns_list_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "review,stars\na,5\n", "r.csv")
    assert message(path, text_column="reviews") == (
        f"{path}:2: unknown column 'reviews'. Did you mean 'review'? Choose from: review, stars."
    )
    assert message(path, text_column="review", pair_column="q") == (
        f"{path}:2: unknown column 'q'. Choose from: review, stars."
    )
    assert message(path, text_column="review", label_column="y") == (
        f"{path}: unknown column 'y'. Choose from: review, stars."
    )


def hub(monkeypatch: pytest.MonkeyPatch, data: datasets.Dataset) -> list[tuple[object, ...]]:
    calls: list[tuple[object, ...]] = []

    def load_dataset(name: str, config: str | None, split: str) -> datasets.Dataset:
        calls.append((name, config, split))
        return data

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_hub_labels_become_names_and_dev_is_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        sentence=datasets.Value("string"), label=datasets.ClassLabel(names=["bad", "good"])
    )
    data = datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [1, -1]}, features)
    calls = hub(monkeypatch, data)
    where = "glue:sst2[validation]:1"
    rows = read_rows("glue:sst2", "dev")
    assert rows[0] == Row(where, ("a",), "good", None, where)
    assert rows[1].label is None
    assert calls == [("glue", "sst2", "validation")]


def test_hub_failures_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, config: str | None, split: str) -> datasets.Dataset:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert message("imdbb", "test") == (
        "'imdbb' is no file or folder here, and its split 'test' could not be loaded from the "
        "Hugging Face hub: no route to host"
    )
    assert message("imdb") == "which split of 'imdb'? Name one, as in train, dev or test."


def test_fingerprints_see_content_only() -> None:
    row = Row("a", ("x",), "pos", (((0, 1),),), "f:1")
    assert fingerprint([row]) == fingerprint([Row("b", ("x",), "pos", (((0, 1),),), "g:9")])
    others = [
        Row("a", ("y",), "pos", (((0, 1),),)),
        Row("a", ("x",), "neg", (((0, 1),),)),
        Row("a", ("x",), "pos", ((),)),
        Row("a", ("x",), "pos", None),
    ]
    assert len({fingerprint([other]) for other in [row, *others]}) == 5
    assert fingerprint([row, others[0]]) != fingerprint([others[0], row])


def test_label_names_are_sorted_and_unique() -> None:
    assert label_names([Row(str(i), ("x",), label) for i, label in enumerate("bab")]) == ["a", "b"]
    assert label_names([Row("a", ("x",))]) == []
