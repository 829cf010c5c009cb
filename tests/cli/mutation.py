"""Files of every kind that ivra reads, and what can happen to them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

RATIONALE = [[0, 4], [9, 12]]
RECORDS: dict[str, list[dict[str, Any]]] = {
    "texts": [
        {"id": "a", "text": "good but not great .", "label": "positive", "rationale": RATIONALE},
        {"id": "b", "text": "a dull plot", "label": "negative", "rationale": []},
        {"id": "c", "text": "the soup was cold", "label": "negative"},
        *(
            {"id": f"{n}", "text": f"it was {word} {n}", "label": label}
            for n, (word, label) in enumerate([("great", "positive"), ("awful", "negative")] * 4)
        ),
    ],
    "pairs": [
        {"premise": "a man sleeps", "hypothesis": "he is awake", "label": "negative"},
        {
            "premise": "it is good",
            "hypothesis": "it is great",
            "label": "positive",
            "rationale": {"premise": [[6, 10]], "hypothesis": [[6, 11]]},
        },
    ],
    "questions": [
        {
            "question": "what was cold ?",
            "context": "the soup was cold .",
            "answers": [{"text": "soup", "start": 4}],
        },
        {"question": "who ?", "context": "the cast is great", "answers": []},
    ],
}
CONFIG = {
    "criteria": "suff",
    "max_length": 32,
    "batch_size": 8,
    "max_steps": 1,
    "validations": 1,
    "levels": ["feature", "head"],
    "bins": [5, 50],
    "lr": 0.02,
    "seed": 1,
    "finetune": "never",
    "options": {"suff": {"form": "kl"}},
    "skip_nonfinite": True,
}
ODD = (
    None,
    True,
    False,
    0,
    -1,
    10**400,
    2**63,
    1.5,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\t\n",
    "\x00",
    "good\x00bad",
    "\ufeff",
    "\ud800",
    "🙂" * 9,
    "e\u0301" * 7,
    "\u200f\u202e\u05e9\u05dc\u05d5\u05dd",
    "مرحبا بالعالم",
    "ﷺ" * 5,
    "[SEP]",
    "[PAD] [MASK]",
    "\u2028",
    "\u00ad\u200b",
    "👩‍👩‍👧‍👦 family",
    "x" * 5000,
    [],
    {},
    [[]],
    [None],
    {"": {}},
    [[0, 10**9]],
    [[-1, 2]],
    [[3, 1]],
    [["a", "b"]],
    [[0, 1, 2]],
    [[1.5, 2.5]],
    [[True, False]],
    [{"text": "x", "start": -5}],
    [{"text": 3}],
    "../../etc/passwd",
    "positive,negative",
    "=1+1",
    "'\"`",
    "%s%n{0}",
    "a: b",
    "- x",
    "&a *a",
    "!!python/object:os.system",
)
"""Values that stand where others are expected."""


def lay_out(folder: Path, draw: random.Random) -> Path:
    """A good file or folder of some kind."""
    kind = draw.choice(["jsonl", "jsonl", "csv", "tsv", "folder", "eraser", "yaml", "yaml"])
    records = RECORDS[draw.choice(["texts", "texts", "texts", "texts", *RECORDS])]
    if kind == "eraser":
        return _eraser(folder / "eraser")
    if kind == "yaml":
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in CONFIG.items()]
        (folder / "config.yaml").write_text("".join(lines), encoding="utf-8")
        return folder / "config.yaml"
    if kind == "folder":
        (folder / "splits").mkdir()
        for split in ("train", "dev", "test"):
            (folder / "splits" / f"{split}.jsonl").write_text(_jsonl(records), encoding="utf-8")
        return folder / "splits"
    path = folder / f"rows.{kind}"
    path.write_text(_jsonl(records) if kind == "jsonl" else _table(records, kind), encoding="utf-8")
    return path


def _jsonl(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _table(records: list[dict[str, Any]], kind: str) -> str:
    columns = list(dict.fromkeys(key for record in records for key in record))
    separator = "," if kind == "csv" else "\t"

    def cell(value: object) -> str:
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        return '"' + text.replace('"', '""') + '"'

    lines = [columns, *([record.get(column) for column in columns] for record in records)]
    return "".join(separator.join(map(cell, line)) + "\n" for line in lines)


def _eraser(folder: Path) -> Path:
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "one").write_text("a dull plot .\n", encoding="utf-8")
    (folder / "docs" / "two").write_text("the cast is great\n", encoding="utf-8")
    span = {"docid": "one", "start_token": 1, "end_token": 3, "text": "dull plot"}
    rows = [
        {"annotation_id": "one", "classification": "NEG", "evidences": [[span]], "query": "good ?"},
        {"annotation_id": "two", "classification": "POS", "evidences": [], "query": "good ?"},
    ]
    for split in ("train", "val", "test"):
        (folder / f"{split}.jsonl").write_text(_jsonl(rows), encoding="utf-8")
    return folder


def mutate(path: Path, draw: random.Random, large: bool) -> str:
    """Do one to three things to a file, or to some file of a folder; what was done."""
    done = []
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        if not files:
            break
        target = draw.choice(files)
        change = draw.choice(LARGE if large and draw.random() < 0.05 else CHANGES)
        content = target.read_bytes()
        target.write_bytes(change(content, draw))
        done.append(f"{change.__name__} {target.name}")
        if path.is_dir() and draw.random() < 0.05:
            target.unlink()
            done.append(f"unlink {target.name}")
    return ", ".join(done)


def flip(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randint(0, len(content))]


def remove(content: bytes, draw: random.Random) -> bytes:
    start = draw.randint(0, len(content))
    return content[:start] + content[start + draw.randint(1, 20) :]


def insert(content: bytes, draw: random.Random) -> bytes:
    pieces = [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n", b'"', b"'", b"{", b"}"]
    pieces += [b"[", b",", b"\t", b"\\", b"\xf0\x9f", b"\xed\xa0\x80", b"NaN", b"-Infinity", b"#"]
    pieces += [
        "\u202e".encode(),
        "🙂".encode(),
        "e\u0301".encode(),
        b"\\ud800",
        b"\x1a",
        b"\x0c",
        b": ",
    ]
    start = draw.randint(0, len(content))
    return content[:start] + draw.choice(pieces) * draw.choice([1, 1, 3]) + content[start:]


def repeat_lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    return content + draw.choice(lines) * draw.randint(1, 3)


def shuffle_lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    draw.shuffle(lines)
    return b"".join(lines)


def recode(content: bytes, draw: random.Random) -> bytes:
    text = content.decode("utf-8", errors="replace")
    coding = draw.choice(
        ["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp1252", "utf-7"]
    )
    return text.encode(coding, errors="replace")


def odd_value(content: bytes, draw: random.Random) -> bytes:
    """Something odd in the place of a value of a JSON line, at any depth."""
    lines = content.decode("utf-8", errors="replace").splitlines()
    if not lines:
        return content
    place = draw.randrange(len(lines))
    key, colon, _ = lines[place].partition(": ")
    odd = draw.choice(ODD)
    try:
        record = json.loads(lines[place])
    except ValueError:
        if colon and key.isidentifier():  # a line of YAML
            lines[place] = f"{key}: {json.dumps(odd)}"
        else:
            cells = lines[place].split(draw.choice([",", "\t"]))
            cells[draw.randrange(len(cells))] = odd if isinstance(odd, str) else json.dumps(odd)
            lines[place] = ",".join(cells)
    else:
        lines[place] = json.dumps(_replaced(record, odd, draw))
    return "\n".join(lines).encode("utf-8", errors="surrogatepass")


def _replaced(value: Any, odd: object, draw: random.Random) -> Any:
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {**value, draw.choice(["", "id", "text", "x" * 300, "\0"]): odd}
        return {**value, key: _replaced(value[key], odd, draw)}
    if isinstance(value, list) and value and draw.random() < 0.6:
        place = draw.randrange(len(value))
        return [*value[:place], _replaced(value[place], odd, draw), *value[place + 1 :]]
    return odd


def nest(content: bytes, draw: random.Random) -> bytes:
    depth = draw.choice([10, 500, 5000])
    opened, closed = draw.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'{"text": [', b"]}")])
    inner = draw.choice([b"1", b"", b'"x"'])
    return content + opened * depth + inner + closed * draw.choice([depth, depth - 1]) + b"\n"


def long_line(content: bytes, draw: random.Random) -> bytes:
    return content + b'{"text": "' + b"good " * 2_000_000 + b'", "label": "positive"}\n'


def long_garbage(content: bytes, draw: random.Random) -> bytes:
    return content + draw.choice([b"x", b",", b'"', b"\xff"]) * 10_000_000


Change = Callable[[bytes, random.Random], bytes]
CHANGES: list[Change] = [
    flip,
    cut,
    remove,
    insert,
    insert,
    repeat_lines,
    shuffle_lines,
    recode,
    nest,
    *[odd_value] * 6,
]
LARGE: list[Change] = [long_line, long_garbage]
