"""A toy set of questions, made by code: who, or where, in a line of little reports."""

import json
import random
from pathlib import Path

from ivra.data import Answer, Row

THINGS = ("plot", "music", "soup", "service", "acting", "story")
WORDS = ("dull", "funny", "good", "bad", "great", "awful", "lovely", "boring")


def toy_questions(count: int, seed: int) -> list[Row]:
    """Rows such as "how is the plot ?" about "the music was good . the plot was dull ."; every
    thing has one word, which is the answer."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        things = draw.sample(THINGS, 3)
        context, starts = "", {}
        for thing in things:
            word = draw.choice(WORDS)
            context += f"the {thing} was "
            starts[thing] = Answer(word, len(context))
            context += f"{word} . "
        asked = draw.choice(things)
        texts = (f"the {asked} ?", context.strip())
        rows.append(
            Row(f"q{seed}-{number}", texts, answers=(starts[asked],), where=f"toy:{number}")
        )
    return rows


def write_toy_questions(folder: Path, sizes: dict[str, int]) -> Path:
    """The same as a folder of splits."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(sizes.items()):
        lines = []
        for row in toy_questions(count, seed):
            answers = [answer._asdict() for answer in row.answers or ()]
            question, context = row.texts
            record = {"id": row.id, "question": question, "context": context, "answers": answers}
            lines.append(json.dumps(record))
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
