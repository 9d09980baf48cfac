"""What a person reads, as HTML. Pictures travel inside it, so that no result is ever written to disk."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from hf_smile.inference.prediction import SmilePrediction
from hf_smile.labels import SMILE_LABELS
from hf_smile.utils.figures import class_colors
from hf_smile.utils.words import counted

if TYPE_CHECKING:
    from engine import Clip, SeenFace

    from hf_smile.inference.explain import Explanation

_WORDS = dict(zip(SMILE_LABELS, ("posed smile", "genuine smile", "no smile"), strict=True))


def word(label: str) -> str:
    """What the page calls a label."""
    return _WORDS.get(label, label)


_PHOTO_SIDE, _THUMBNAIL_SIDE = 1024, 160
_SURE_ENOUGH_TO_BE_A_SMILE = 0.5
_CROWD = 6  # with more faces than that, tags would cover faces: only the chosen one's is shown

CHOOSE_FACE = """
element.setAttribute('aria-live', 'polite');
element.addEventListener('click', (event) => {
    const face = event.target.closest('button.hs-face');
    if (!face) return;
    element.querySelectorAll('button.hs-face').forEach((other) => other.setAttribute('aria-pressed', other === face));
    trigger('click', {face: Number(face.dataset.face)});
});
"""
"""Script of the component that shows `photo`: its click events carry the index of the face."""

SPEAK = "element.setAttribute('aria-live', 'polite');"
"""Script of a component that screen readers shall read out when it changes."""


def percent(probability: float) -> str:
    """Whole percents that never claim certainty and never break at the end of a line.

    >>> percent(0.731), percent(0.9996)
    ('73\\xa0%', 'over\\xa099\\xa0%')
    """
    if probability > 0.995:
        return "over\xa099\xa0%"
    return "under\xa01\xa0%" if probability < 0.005 else f"{100 * probability:.0f}\xa0%"


def verdict(prediction: SmilePrediction) -> str:
    """A verdict in a few words: `genuine smile, 93 %`."""
    if prediction.label is None or prediction.probabilities is None:
        return f"no verdict: {prediction.error or prediction.note}"
    return f"{word(prediction.label)}, {percent(prediction.probabilities[prediction.label])}"


def message(title: str, text: str, kind: str = "hint") -> str:
    """A state in words; `kind` is `hint` or `problem`."""
    text = text[:1].upper() + text[1:]
    return f'<div class="hs-message {kind}"><strong>{escape(title)}</strong><p>{escape(text)}</p></div>'


def photo(image: Image.Image, faces: Sequence[SeenFace]) -> str:
    """The photo, with a button over every face that says its verdict; the first one is chosen."""
    boxes = []
    for index, (prediction, _) in enumerate(faces):
        if prediction.box is None:
            continue
        left, top, right, bottom = prediction.box
        place = (left / image.width, top / image.height, (right - left) / image.width, (bottom - top) / image.height)
        style = ";".join(
            f"{name}:{100 * value:.2f}%" for name, value in zip(("left", "top", "width", "height"), place, strict=True)
        )
        words = verdict(prediction)
        tag = words.replace(",", "") if prediction.label == "NOT smile" else words.replace(" smile,", "")
        # The tag must not leave the photo.
        sides = f"{'to-left' if left > 0.66 * image.width else ''} {'below' if top < 0.1 * image.height else ''}"
        boxes.append(
            f'<button type="button" class="hs-face {sides}" data-face="{index}" '
            f'aria-pressed="{str(index == 0).lower()}" aria-label="{escape(f"Face {index + 1}: {words}")}" '
            f'style="{style};--class:{_color(prediction)}"><span>{escape(tag)}</span></button>'
        )
    alt = f"Your photo, {counted(len(boxes), 'face')} marked" if boxes else "Your photo"
    crowd = " crowd" if len(boxes) > _CROWD else ""
    return (
        f'{_found(faces)}<div class="hs-photo{crowd}"><img src="{data_uri(image, _PHOTO_SIDE)}" alt="{alt}">'
        f"{''.join(boxes)}</div>"
    )


def _found(faces: Sequence[SeenFace]) -> str:
    if not faces:
        return message(
            "No face found", "So there is no verdict. Faces are found best from the front, upright and large."
        )
    if faces[0].prediction.box is None:
        return message(
            "Taken for a face crop", "The picture looks like a face cut out closely, so all of it was classified."
        )
    if len(faces) == 1:
        return '<p class="hs-status">One face found.</p>'
    return f'<p class="hs-status">{len(faces)} faces found. Choose one to read more about it.</p>'


def details(faces: Sequence[SeenFace], index: int) -> str:
    """Verdict, probabilities and further questions about one face; nothing where there is none."""
    if not faces:
        return ""
    prediction = faces[index].prediction
    colors = class_colors(prediction.labels)
    about = "The whole picture" if prediction.box is None else "This face"
    if len(faces) > 1:
        about = f"Face {index + 1} of {len(faces)}"
    bars = "".join(_bar(word(name), p, colors[name]) for name, p in (prediction.probabilities or {}).items())
    return (
        f'<section class="hs-details"><p class="hs-about">{about}</p><h3>{escape(verdict(prediction))}</h3>'
        f'<div class="hs-bars">{bars}</div>{_questions(prediction)}</section>'
    )


def _questions(prediction: SmilePrediction) -> str:
    """Those that the labels answer beyond what their own bars say."""
    if prediction.p_smile is None or "smile" in prediction.labels.slugs:
        return ""
    bars = _bar("Smiling?", prediction.p_smile)
    if prediction.p_genuine_given_smile is not None:
        bars += _bar("Genuine, if smiling?", prediction.p_genuine_given_smile)
        if prediction.p_smile < _SURE_ENOUGH_TO_BE_A_SMILE:
            bars += "<p>Only worth something if there is a smile at all.</p>"
    return f'<div class="hs-bars hs-questions">{bars}</div>'


def _color(prediction: SmilePrediction) -> str:
    return class_colors(prediction.labels)[prediction.label or ""]


def _bar(name: str, probability: float, color: str = "var(--neutral-500)") -> str:
    shown = percent(probability)
    return (
        f'<div class="hs-bar"><span>{escape(name)}</span><span>{shown}</span>'
        f'<div role="meter" aria-label="{escape(name)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * probability:.0f}" aria-valuetext="{shown}">'
        f'<div style="width:{100 * probability:.1f}%;background:{color}"></div></div></div>'
    )


def heat_map(explanation: Explanation) -> str:
    """What the network saw, beside where it looked."""
    spoken_for = word(explanation.label)
    if not explanation.heat.any():
        return message("Where the model looked", f"No part of the picture spoke for “{spoken_for}” more than another.")
    upper, lower = percent(explanation.upper_share), percent(explanation.lower_share)
    return (
        '<section class="hs-heat"><h4>Where the model looked</h4><div>'
        f'<figure><img src="{data_uri(explanation.image)}" alt="The face as the model sees it">'
        "<figcaption>What it saw</figcaption></figure>"
        f'<figure><img src="{data_uri(explanation.overlay())}" alt="Heat map: {upper} on the upper half, {lower} on '
        f'the lower half"><figcaption>What spoke for “{spoken_for}”</figcaption></figure></div>'
        f"<p>{upper} of the heat is on the upper half, where the eyes are, {lower} on the lower half with the mouth. "
        "The brighter, the more it counted.</p></section>"
    )


def batch(predictions: Sequence[SmilePrediction], faces: Sequence[SeenFace]) -> str:
    """All verdicts of a batch: a gallery and a table, each in the order given."""
    failed = sum(prediction.error is not None for prediction in predictions)
    unread = f", {counted(failed, 'file')} could not be read" if failed else ""
    return (
        f'<p class="hs-status">{counted(len(faces), "verdict")}{unread}. The surest come first.</p>'
        f"{_gallery(faces)}{_table(predictions)}"
    )


def _gallery(faces: Iterable[SeenFace]) -> str:
    items = []
    for prediction, crop in faces:
        words, name = escape(verdict(prediction)), escape(prediction.source or "")
        color = _color(prediction)
        items.append(
            f'<figure style="--class:{color}"><img src="{data_uri(crop, _THUMBNAIL_SIDE)}" alt="{words}: {name}">'
            f'<figcaption><strong>{words}</strong><span title="{name}">{name}</span></figcaption></figure>'
        )
    return f'<div class="hs-gallery">{"".join(items)}</div>' if items else ""


def _table(predictions: Iterable[SmilePrediction]) -> str:
    predictions = [*predictions]
    asked = {"smiling?": "p_smile", "genuine, if so?": "p_genuine_given_smile"}
    asked = {words: name for words, name in asked.items() if name in predictions[0].to_dict()} if predictions else {}
    names = "image", "verdict", *asked, "remark"
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = []
    for prediction in predictions:
        numbers = [getattr(prediction, name) for name in asked.values()]
        cells = [prediction.source or "", verdict(prediction), *("" if p is None else percent(p) for p in numbers)]
        cells.append(prediction.note or "" if prediction.label else "")
        rows.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    return f'<div class="hs-table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def peaks(clip: Clip, limit: float) -> str:
    """The moments at which smiles were surest."""
    seen = f"The first {limit:.0f} seconds were looked at." if clip.seconds > limit - 1 else ""
    if not clip.rows:
        return message("No face found", f"No frame of the clip shows a face that we can find. {seen}")
    if not clip.peaks:
        return message("No smile", f"No face in the clip smiles. {seen}")
    items = [
        f'<figure><img src="{data_uri(frame, 480)}" alt="Frame at {seconds:.1f} seconds, face {face} marked">'
        f"<figcaption><strong>{seconds:.1f} s</strong><span>face {face}</span></figcaption></figure>"
        for seconds, face, frame in clip.peaks
    ]
    head = f"{counted(len(items), 'smile')} in {clip.seconds:.0f} seconds, each at its peak. {seen}"
    return f'<p class="hs-status">{head}</p><div class="hs-gallery hs-wide">{"".join(items)}</div>'


def download(name: str, text: str) -> str:
    """A link that saves `text` as a file."""
    content = base64.b64encode(text.encode()).decode()
    return f'<a class="hs-download" download="{escape(name)}" href="data:text/csv;base64,{content}">Download {name}</a>'


def data_uri(image: Image.Image, longest_side: int | None = None) -> str:
    """The picture as an address that holds it, made smaller where its sides are longer than `longest_side`."""
    if longest_side:
        image = image.copy()
        image.thumbnail((longest_side, longest_side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
