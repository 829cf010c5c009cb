"""ERASER directories: tokens as the benchmark counts them, and every message."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivra.backbones import load_backbone
from ivra.data import (
    Row,
    document_ids,
    document_tokens,
    encode_rows,
    label_names,
    read_rows,
)
from ivra.errors import IvraError
from ivra.training import TrainConfig, read_splits

REVIEW = "a dull plot .\n\n  but  the cast is great !\n"
MOVIE = {
    "annotation_id": "negR_0.txt",
    "classification": "NEG",
    "evidences": [
        [{"docid": "negR_0.txt", "start_token": 1, "end_token": 3, "text": "dull plot"}],
        [{"docid": "negR_0.txt", "start_token": 2, "end_token": 5}],
    ],
    "query": "What is the sentiment of this review?",
    "query_type": None,
}


def evidence(docid: str, start: object, end: object) -> dict[str, object]:
    return {"docid": docid, "start_token": start, "end_token": end}


def annotation(name: str, *evidences: dict[str, object], **fields: object) -> dict[str, object]:
    return {"annotation_id": name, "classification": "yes", "evidences": [[*evidences]]} | fields


def lay(
    folder: Path,
    splits: dict[str, list[Any]],
    documents: dict[str, str],
    in_one_file: bool = False,
) -> Path:
    """An ERASER directory; strings among the annotations are lines as they stand."""
    folder.mkdir(exist_ok=True)
    for split, lines in splits.items():
        text = "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    if in_one_file:
        text = "".join(json.dumps({"docid": d, "document": t}) + "\n" for d, t in documents.items())
        (folder / "docs.jsonl").write_text(text, encoding="utf-8")
    else:
        (folder / "docs").mkdir(exist_ok=True)
        for docid, content in documents.items():
            (folder / "docs" / docid).write_bytes(content.encode())
    return folder


def message(folder: Path, split: str | None = "train", **columns: str) -> str:
    with pytest.raises(IvraError) as caught:
        read_rows(folder, split, **columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def benchmark_tokens(text: str, in_one_file: bool) -> list[str]:
    """As the benchmark reads a document: a folder's files lose blanks, ``docs.jsonl`` does not."""
    if in_one_file:
        return [piece for line in text.split("\n") for piece in line.strip().split(" ")]
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return [piece for line in text.split("\n") for piece in line.strip().split(" ") if piece]


def pieces(row: Row, place: int = 0) -> list[str]:
    return [row.texts[place][start:end] for start, end in document_tokens(row)[place]]


def test_a_review_with_its_evidences(tmp_path: Path) -> None:
    folder = lay(tmp_path / "movies", {"train": [MOVIE]}, {"negR_0.txt": REVIEW})
    (row,) = read_rows(folder, "train")
    text = "a dull plot .\nbut the cast is great !"
    where = f"{folder}/train.jsonl:1"
    spans = ((2, 11), (7, 17))
    assert row == Row("negR_0.txt", (text,), "NEG", (spans,), where, ("negR_0.txt",))
    assert [text[start:end] for start, end in spans] == ["dull plot", "plot .\nbut"]
    assert pieces(row) == benchmark_tokens(REVIEW, False)
    assert document_ids(row) == ("negR_0.txt",)


def test_evidences_become_marks_of_the_models_tokens(tmp_path: Path) -> None:
    folder = lay(tmp_path / "movies", {"train": [MOVIE]}, {"negR_0.txt": REVIEW})
    rows = read_rows(folder, "train")
    tokenizer = load_backbone("tiny-electra", ("NEG", "POS")).tokenizer
    (item,) = encode_rows(rows, tokenizer, label_names(rows), 64)
    marked = {
        rows[0].texts[0][start:end]
        for (start, end), mark in zip(item.offsets, item.rationale or [], strict=True)
        if mark
    }
    assert "".join(sorted(marked)) == "".join(sorted(["dull", "plot", ".", "but"]))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.text(st.sampled_from("ab \n\t\r\u00a0\u2028\u3000"), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_tokens_are_those_that_the_benchmark_counts(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], in_one_file: bool
) -> None:
    texts = [text + "x" for text in texts]
    documents = {f"d{i}": text for i, text in enumerate(texts)}
    lines = []
    for docid, text in documents.items():
        count = len(benchmark_tokens(text, in_one_file))
        lines.append(annotation(docid, *(evidence(docid, t, t + 1) for t in range(count))))
    folder = lay(tmp_path_factory.mktemp("set"), {"test": lines}, documents, in_one_file)
    for row, text in zip(read_rows(folder, "test"), texts, strict=True):
        expected = benchmark_tokens(text, in_one_file)
        assert pieces(row) == expected
        assert row.rationale is not None
        marked = [row.texts[0][start:end] for start, end in row.rationale[0]]
        assert marked == [piece for piece in expected if piece]


def test_premise_and_hypothesis_are_found_by_their_names(tmp_path: Path) -> None:
    lines = [
        annotation("p1#r", evidence("p1#r_hypothesis", 1, 2), docids=["p1#r_hypothesis"]),
        annotation("p2#r", evidence("p2#r_premise", 0, 1), evidence("p2#r_hypothesis", 1, 3)),
    ]
    documents = {
        "p1#r_premise": "a man sleeps",
        "p1#r_hypothesis": "a woman",
        "p2#r_premise": "boys",
        "p2#r_hypothesis": "no boys play",
    }
    folder = lay(tmp_path / "esnli", {"val": lines}, documents, in_one_file=True)
    first, second = read_rows(folder, "dev")
    assert first.texts == ("a man sleeps", "a woman")
    assert first.rationale == ((), ((2, 7),))
    assert second.rationale == (((0, 4),), ((3, 12),))
    assert second.docids == document_ids(second) == ("p2#r_premise", "p2#r_hypothesis")


def test_documents_are_listed_or_named_by_evidences_or_by_the_annotation(tmp_path: Path) -> None:
    lines = [
        annotation("one", evidence("b", 0, 1), docids=["b", "a"]),
        annotation("two", evidence("b", 0, 1), evidence("a", 0, 1)),
        annotation("a", docids=None),
    ]
    folder = lay(tmp_path / "set", {"train": lines}, {"a": "aa", "b": "bb"})
    rows = read_rows(folder, "train")
    assert [row.docids for row in rows] == [("b", "a"), ("a", "b"), ("a",)]
    assert [row.texts for row in rows] == [("bb", "aa"), ("aa", "bb"), ("aa",)]
    assert rows[2].rationale == ((),)


def test_queries_that_differ_are_read_by_the_model_and_protected(tmp_path: Path) -> None:
    lines = [
        annotation(f"q{i}", evidence("d", 1, 2), query=query)
        for i, query in enumerate(["is it good", "is it bad || yes"])
    ]
    folder = lay(tmp_path / "boolq", {"train": lines, "test": lines[:1]}, {"d": "a good film"})
    rows = read_rows(folder, "train")
    assert [row.texts for row in rows] == [
        ("a good film", "is it good"),
        ("a good film", "is it bad || yes"),
    ]
    assert rows[0].docids == ("d", None)
    assert rows[0].rationale == (((2, 6),), ())
    assert read_rows(folder, "test") == [
        Row(**(vars(rows[0]) | {"where": f"{folder}/test.jsonl:1"}))
    ]
    tokenizer = load_backbone("tiny-electra", ("no", "yes")).tokenizer
    for item in encode_rows(rows, tokenizer, None, 32):
        assert {s for s, yes in zip(item.segment, item.explainable, strict=True) if yes} == {0}
        assert 1 in item.segment
    same = [line | {"query": "is it good"} for line in lines]
    folder = lay(tmp_path / "movies", {"train": same}, {"d": "a good film"})
    assert [row.texts for row in read_rows(folder, "train")] == [("a good film",)] * 2


def test_rows_that_are_not_erasers_have_documents_too() -> None:
    assert document_ids(Row("r", ("a",))) == ("r",)
    assert document_ids(Row("r", ("a", "b"))) == ("r_premise", "r_hypothesis")
    assert document_tokens(Row("r", (" a\u00a0b\t c",))) == (((1, 2), (3, 4), (6, 7)),)


def test_val_is_the_validation_part_of_a_run(tmp_path: Path) -> None:
    documents = dict.fromkeys(("t0", "t1", "v0", "e0"), "a b c")
    splits = {
        "train": [annotation("t0"), annotation("t1", classification="no")],
        "val": [annotation("v0")],
        "test": [annotation("e0")],
    }
    folder = lay(tmp_path / "set", splits, documents)
    found = read_splits(TrainConfig(data=str(folder)))
    assert [[row.id for row in rows] for rows in vars(found).values()] == [
        ["t0", "t1"],
        ["v0"],
        ["e0"],
    ]
    (folder / "test.jsonl").unlink()
    assert [row.id for row in read_splits(TrainConfig(data=str(folder))).test] == ["v0"]


def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    line, document = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "train.jsonl").write_text(line)
    (tmp_path / "docs.jsonl").write_text(document)
    (row,) = read_rows(tmp_path, "train")
    assert row.rationale is not None
    assert [row.texts[0][start:end] for start, end in row.rationale[0]] == ["not good"]


def test_an_ordinary_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    assert read_rows(tmp_path, "train")[0].texts == ("a",)
    (tmp_path / "docs").rmdir()
    (tmp_path / "train.jsonl").write_text('{"text": "a", "annotation_id": 5}\n')
    assert read_rows(tmp_path, "train")[0].texts == ("a",)


BAD_LINES: list[tuple[Any, str]] = [
    ("{", "expected one JSON object a line, got bad JSON at column 2: "),
    ("[1]", "expected a JSON object {...}, got [1]."),
    ({"classification": "x"}, "expected a field 'annotation_id'; the fields are: classification."),
    (annotation(7), "expected 'annotation_id' to be a string with text, got 7."),
    (
        {"annotation_id": "a", "evidences": []},
        "expected a field 'classification'; the fields are: annotation_id, evidences.",
    ),
    (
        annotation("a", classification=True),
        "expected 'classification' to be a string with text, got True.",
    ),
    (
        annotation("a", classification=" "),
        "expected 'classification' to be a string with text, got ' '.",
    ),
    (
        annotation("a", evidences=None),
        "expected 'evidences' to be a list of lists of evidences, got None.",
    ),
    (
        annotation("a", evidences=[{"docid": "a"}]),
        "expected 'evidences' to be a list of lists of evidences, got [{'docid': 'a'}].",
    ),
    (
        annotation("a", evidences=[["a"]]),
        "expected each evidence to be an object with 'docid', 'start_token' and 'end_token', "
        "got 'a'.",
    ),
    (
        annotation("a", evidences=[[{"start_token": 1}]]),
        "expected a field 'docid'; the fields are: start_token.",
    ),
    (annotation("a", evidence("a", 1, 4)), "evidence [1, 4] does not fit the document 'a', which "
     "has 3 tokens; need 0 <= start_token < end_token <= 3."),
    (annotation("a", evidence("a", 2, 2)), "evidence [2, 2] does not fit the document 'a', which "
     "has 3 tokens; need 0 <= start_token < end_token <= 3."),
    (annotation("a", evidence("a", -1, 1)), "evidence [-1, 1] does not fit the document 'a', which "
     "has 3 tokens; need 0 <= start_token < end_token <= 3."),
    (
        annotation("a", evidence("a", 1.0, 2)),
        "expected 'start_token' of an evidence to be a whole number, got 1.0.",
    ),
    (
        annotation("a", evidence("a", 0, True)),
        "expected 'end_token' of an evidence to be a whole number, got True.",
    ),
    (
        annotation("a", {"docid": "a", "start_token": 0}),
        "expected 'end_token' of an evidence to be a whole number, got None.",
    ),
    (annotation("a", evidence("gone", 0, 1)), "no document 'gone' in {place}."),
    (annotation("gone"), "no document 'gone' in {place}."),
    (annotation("x", docids=["a", "gone"]), "no document 'gone' in {place}."),
    (annotation("x", docids=["../train.jsonl"]), "no document '../train.jsonl' in {place}."),
    (annotation("x", docids=["/etc/passwd"]), "no document '/etc/passwd' in {place}."),
    (annotation("x", docids=["n" * 300]), "no document '" + "n" * 56 + "... in {place}."),
    (annotation("x", docids="a"), "expected 'docids' to be a list of strings, got 'a'."),
    (annotation("x", docids=[1]), "expected 'docids' to be a list of strings, got [1]."),
    (
        annotation("x", evidence("b", 0, 1), docids=["a"]),
        "an evidence names the document 'b', but the row's documents are 'a'.",
    ),
    (
        annotation("x", evidence("gone", 0, 1), docids=["a"]),
        "no document 'gone' in {place}.",
    ),
    (
        annotation("x", evidence("a", 0, 1), evidence("b", 0, 1), evidence("empty", 0, 1)),
        "expected one or two documents, got 3 ('a, b, empty'); a model reads a text or a pair.",
    ),
    (annotation("empty"), "the document 'empty' in {place} is empty."),
]  # fmt: skip


@pytest.mark.parametrize("in_one_file", [False, True])
@pytest.mark.parametrize(("line", "told"), BAD_LINES)
def test_what_is_malformed_is_named_with_file_and_line(
    tmp_path: Path, line: object, told: str, in_one_file: bool
) -> None:
    documents = {"a": "one two three", "b": "four"} | ({} if in_one_file else {"empty": " "})
    if in_one_file and "is empty" in told:
        pytest.skip("such a document is refused where it stands")
    good = annotation("b", evidence("b", 0, 1))
    folder = lay(tmp_path / "set", {"train": [good, line]}, documents, in_one_file)
    place = folder / ("docs.jsonl" if in_one_file else "docs")
    told = told.replace("{place}", str(place))
    assert message(folder).startswith(f"{folder}/train.jsonl:2: {told}")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense", "expected one JSON object a line, got bad JSON at column 1: Expecting value."),
        ('{"docid": "b"}', "expected a field 'document'; the fields are: docid."),
        ('{"document": "b"}', "expected a field 'docid'; the fields are: document."),
        (
            '{"docid": "b", "document": " \\n"}',
            "expected 'document' to be a string with text, got ' \\n'.",
        ),
        ('{"docid": "a", "document": "b"}', "the document 'a' stands already above."),
    ],
)
def test_a_malformed_file_of_documents(tmp_path: Path, line: str, told: str) -> None:
    folder = lay(tmp_path / "set", {"train": [annotation("a")]}, {"a": "one"}, in_one_file=True)
    with (folder / "docs.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert message(folder) == f"{folder}/docs.jsonl:2: {told}"


def test_a_malformed_directory(tmp_path: Path) -> None:
    folder = lay(tmp_path / "set", {"train": [annotation("a"), annotation("a")]}, {"a": "one"})
    assert message(folder) == (
        f"{folder}/train.jsonl:2: the id 'a' stands already at {folder}/train.jsonl:1; ids must "
        f"differ, or be left out."
    )
    assert message(folder, "dev").startswith(f"{folder}: no split 'dev' in it, only train; ")
    assert message(folder, None) == f"which split of '{folder}'? Choose from: train."
    assert message(folder, label_column="y") == (
        f"{folder}: ERASER data has fixed columns; leave the column flags out."
    )
    (folder / "docs.jsonl").write_text("")
    assert message(folder) == (
        f"{folder}: expected the documents of an ERASER data set in a folder 'docs' or a file "
        f"'docs.jsonl', found both; remove one."
    )
    (folder / "docs.jsonl").unlink()
    (folder / "docs" / "a").write_bytes(b"one\n\xff")
    assert message(folder) == (
        f"{folder}/docs/a:2: expected UTF-8, got the byte 0xff; save the file as UTF-8."
    )
    (folder / "train.jsonl").write_text("\n")
    assert message(folder) == f"{folder}: no rows in its split 'train'; expected at least one."
    (folder / "train.jsonl").unlink()
    assert message(folder) == (
        f"{folder}: expected ERASER data to have train.jsonl, val.jsonl or test.jsonl, found none "
        f"of them."
    )
    bare = lay(tmp_path / "bare", {"train": [annotation("a")]}, {})
    (bare / "docs").rmdir()
    assert message(bare) == (
        f"{bare}: expected the documents of an ERASER data set in a folder 'docs' or a file "
        f"'docs.jsonl', found neither."
    )


def test_a_varying_query_must_be_there(tmp_path: Path) -> None:
    lines = [annotation("a", query="x"), annotation("b")]
    folder = lay(tmp_path / "set", {"train": lines}, {"a": "one", "b": "two"})
    assert message(folder).startswith(f"{folder}/train.jsonl:2: expected a field 'query'")


MOVIES = Path(os.environ.get("IVRA_DATA", "")) / "movies"


@pytest.mark.skipif(
    "IVRA_DATA" not in os.environ or not MOVIES.is_dir(), reason="needs IVRA_DATA with movies"
)
@pytest.mark.parametrize("in_one_file", [False, True])
def test_the_movie_reviews_as_eraser_are_the_same_rows(tmp_path: Path, in_one_file: bool) -> None:
    """Spans over characters to evidences over tokens and back, on real reviews."""
    rows = read_rows(MOVIES, "test")
    lines, documents = [], {}
    for row in rows:
        documents[row.id] = row.texts[0]
        ends, place = {}, 0
        for number, piece in enumerate(row.texts[0].replace("\n", " ").split(" ")):
            ends[place] = ends[place + len(piece)] = number
            place += len(piece) + 1
        spans = (row.rationale or ((),))[0]
        found = [evidence(row.id, ends[start], ends[end] + 1) for start, end in spans]
        lines.append(annotation(row.id, *found, classification=row.label, query="?"))
    folder = lay(tmp_path / "movies", {"test": lines}, documents, in_one_file)
    again = read_rows(folder, "test")
    assert [(r.id, r.texts, r.label, r.rationale) for r in again] == [
        (r.id, r.texts, r.label, r.rationale) for r in rows
    ]
