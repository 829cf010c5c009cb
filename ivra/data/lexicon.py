"""The words and clause patterns of the built-in data set. A ``{slot}`` stands for one choice."""

POSITIVE = (
    "good", "great", "lovely", "superb", "charming", "excellent", "splendid", "perfect",
)  # fmt: skip
NEGATIVE = (
    "bad", "awful", "dull", "poor", "dreadful", "terrible", "tedious", "nasty",
)  # fmt: skip
NEGATORS = ("not", "never", "hardly")
ADVERBS = ("really", "very", "quite", "so")
HEARSAY = ("supposedly", "allegedly", "reportedly", "apparently")
"""Stand before the sentiment word of other people's opinions."""

TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "product": {
        "aspect": ("screen", "battery", "sound", "keyboard", "camera", "handle", "cable", "case"),
        "filler": (
            "we bought it early in {month} from the store",
            "it came in a {colour} box with a lid",
            "the parcel took about {number} days to get here",
            "the other version is in {colour} with a stripe",
            "we ordered it on a {day} after the holidays",
        ),
    },
    "film": {
        "aspect": ("plot", "acting", "music", "ending", "dialogue", "cast", "script", "editing"),
        "filler": (
            "we saw it on a {day} after the match",
            "it runs for about {number} hours with the adverts",
            "the hero wears a {colour} coat in the rain",
            "it came out late in {month} on the coast",
            "there were {number} of us in the back row",
        ),
    },
    "restaurant": {
        "aspect": ("soup", "service", "bread", "dessert", "menu", "coffee", "terrace", "fish"),
        "filler": (
            "we went there on a {day} after the match",
            "we sat at a {colour} table by the window",
            "the waiter brought us {number} plates and some water",
            "the place opened again in {month} after the works",
            "there were {number} of us at the long table",
        ),
    },
}
MAIN = (
    "i found the {aspect} {opinion} , i admit",
    "to me it was {opinion} , i think",
    "i myself called it {opinion} , i admit",
    "my own {aspect} was {opinion} , i think",
)
"""The deciding clause: the writer's own opinion."""

DISTRACTOR = (
    "they found the {aspect} {opinion} , they said",
    "to them it was {opinion} , they thought",
    "others had called it {opinion} , they said",
    "their own {aspect} was {opinion} , they thought",
)
"""An opinion of other people, which decides nothing."""

BEFORE = ("{other} , but {main}", "{other} , yet {main}")
AFTER = ("{main} , though {other}", "{main} , although {other}")
JOINTS = (" , and ", " ; also ")
BARE = (
    "{opinion} .", "{opinion} !", "{opinion}", "just {opinion} .", "{opinion} {aspect} .",
    "{aspect} : {opinion} .", "{opinion} , that is all .", "overall {opinion} .",
)  # fmt: skip

BARE_OTHER = (
    "{other} , but {opinion} .", "{other} ; {opinion} !", "{opinion} , though {other} .",
    "{opinion} , {other} .",
)  # fmt: skip
"""Nearly bare evidence beside nearly bare hearsay."""

FILLS: dict[str, tuple[str, ...]] = {
    "month": ("january", "march", "april", "june", "july", "october"),
    "day": ("monday", "tuesday", "friday", "saturday"),
    "colour": ("red", "blue", "green", "black", "white"),
    "number": ("two", "three", "four", "five", "six"),
}


def lexicon() -> list[str]:
    """Every word and mark that the generator can write, sorted."""
    patterns = [*MAIN, *DISTRACTOR, *BEFORE, *AFTER, *JOINTS, *BARE, *BARE_OTHER]
    patterns += [text for topic in TOPICS.values() for texts in topic.values() for text in texts]
    patterns += [text for texts in FILLS.values() for text in texts]
    words = {word for text in patterns for word in text.split() if "{" not in word}
    return sorted(words | {*POSITIVE, *NEGATIVE, *NEGATORS, *ADVERBS, *HEARSAY})
