"""The three classes: names, ids and the spellings accepted in CSV files. Imports nothing, so everyone may import it."""

NEGATIVE_SMILE, POSITIVE_SMILE, NOT_SMILE = 0, 1, 2

LABEL_NAMES = ("negative smile", "positive smile", "NOT smile")
"""Label names in id order, spelled as the original annotations spell them."""

NUM_LABELS = len(LABEL_NAMES)
ID2LABEL = dict(enumerate(LABEL_NAMES))
LABEL2ID = {name: label_id for label_id, name in ID2LABEL.items()}


def label_slug(name: str) -> str:
    """The label as part of a column or metric name.

    >>> label_slug("NOT smile")
    'not_smile'
    """
    return name.lower().replace(" ", "_")


_SPELLINGS = {
    spelling: label_id
    for label_id, name in ID2LABEL.items()
    for spelling in (name.lower(), label_slug(name), str(label_id))
}


def parse_label(text: str) -> int:
    """Label id of a label as users write it: the name in any case, with blanks or underscores, or the id.

    Raises:
        ValueError: the text is none of these.

    >>> parse_label("  Positive Smile ")
    1
    """
    try:
        return _SPELLINGS[text.strip().lower()]
    except KeyError:
        names, ids = ", ".join(map(repr, LABEL_NAMES)), ", ".join(map(str, ID2LABEL))
        raise ValueError(f"unknown label {text!r}; expected one of {names} (or {ids})") from None
