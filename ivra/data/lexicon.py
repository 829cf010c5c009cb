"""The words and clause patterns of the built-in data set. A ``{slot}`` stands for one choice."""

POSITIVE = (
    "good", "great", "lovely", "superb", "charming", "pleasant",
    "brilliant", "delightful", "excellent", "wonderful", "splendid", "perfect",
)  # fmt: skip
NEGATIVE = (
    "bad", "awful", "dull", "poor", "dreadful", "horrible",
    "terrible", "tedious", "shoddy", "dismal", "weak", "nasty",
)  # fmt: skip
NEGATORS = ("not", "never", "hardly")
ADVERBS = ("really", "very", "quite", "so")

TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "product": {
        "aspect": ("screen", "battery", "sound", "keyboard", "camera", "handle", "cable", "case"),
        "filler": (
            "i bought it early in {month}",
            "it came in a {colour} box",
            "the parcel took about {number} days",
            "my sister has the {colour} one",
            "we ordered it on a {day}",
        ),
    },
    "film": {
        "aspect": ("plot", "acting", "music", "ending", "dialogue", "cast", "script", "editing"),
        "filler": (
            "we saw it on a {day}",
            "it runs for about {number} hours",
            "the hero wears a {colour} coat",
            "it came out late in {month}",
            "there were {number} of us there",
        ),
    },
    "restaurant": {
        "aspect": ("soup", "service", "bread", "dessert", "menu", "coffee", "terrace", "fish"),
        "filler": (
            "we went there on a {day}",
            "we sat at a {colour} table",
            "the waiter brought us {number} plates",
            "the place opened again in {month}",
            "there were {number} of us there",
        ),
    },
}
HOLDERS = ("they", "critics", "people", "friends")

MAIN = (
    "i found the {aspect} {opinion}",
    "for me it was {opinion}",
    "i thought it was {opinion}",
    "i called the {aspect} {opinion}",
)
"""The deciding clause: the writer's own opinion."""

DISTRACTOR = (
    "{holder} found the {aspect} {opinion}",
    "for {holder} it was {opinion}",
    "{holder} thought it was {opinion}",
    "{holder} called the {aspect} {opinion}",
)
"""An opinion that decides nothing: of another person, another time, or an expectation."""

BEFORE = ("{other} , but {main}", "{other} , yet {main}", "{other} , and {main}")
AFTER = ("{main} , but {other}", "{main} , though {other}", "{main} , and {other}")
JOINTS = (" , and ", " ; also ")
BARE = (
    "{opinion} .", "{opinion} !", "{opinion}", "just {opinion} .", "{opinion} {aspect} .",
    "{aspect} : {opinion} .", "{opinion} , that is all .", "overall {opinion} .",
)  # fmt: skip

FILLS: dict[str, tuple[str, ...]] = {
    "month": ("january", "march", "april", "june", "july", "october"),
    "day": ("monday", "tuesday", "friday", "saturday"),
    "colour": ("red", "blue", "green", "black", "white"),
    "number": ("two", "three", "four", "five", "six"),
}


def lexicon() -> list[str]:
    """Every word and mark that the generator can write, sorted."""
    patterns = [*MAIN, *DISTRACTOR, *BEFORE, *AFTER, *JOINTS, *BARE]
    patterns += [text for topic in TOPICS.values() for texts in topic.values() for text in texts]
    patterns += [text for texts in FILLS.values() for text in texts]
    words = {word for text in patterns for word in text.split() if "{" not in word}
    return sorted(words | {*POSITIVE, *NEGATIVE, *NEGATORS, *ADVERBS, *HOLDERS})
