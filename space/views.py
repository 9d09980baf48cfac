"""The results as HTML. Pictures are embedded, so that no result is written to disk."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

from engine import MAX_FACES
from PIL import Image
from words import claim, percent, sentence, short, track_record, word

from hf_smile.inference.prediction import NO_FACE, SmilePrediction
from hf_smile.utils.figures import class_colors
from hf_smile.utils.words import counted

if TYPE_CHECKING:
    from engine import Clip, SeenFace

    from hf_smile.inference.explain import Explanation

_PHOTO_SIDE, _THUMBNAIL_SIDE, _BADGE_SIDE = 1024, 160, 112
_GREY = "#767676"
_PEOPLE = ("#8250c4", "#b07800", "#c2559a", "#5a6b7b", "#8a5a2b")

CAMERA = """
<div class="hs-camera" hidden><video muted playsinline aria-label="Your camera"></video>
<div class="hs-over"></div></div>
<button type="button" class="hs-button">Start the camera</button>
<p class="hs-hint">Frames are analysed one at a time and not stored.</p><p role="alert"></p>
"""
"""The camera tab, which sends frames; `hs.camera` in page.js is its script."""


def intake(examples: Mapping[str, Any]) -> str:
    """Return the upload area for a photo with thumbnails of the examples; `hs.intake` in page.js is its script.

    Args:
        examples: mapping from name to photo file.
    """
    items = "".join(
        f'<li><button type="button" data-example="{number}"><img src="{_thumbnail(path)}" alt=""><span>{escape(name)}'
        "</span></button></li>"
        for number, (name, path) in enumerate(examples.items())
    )
    return (
        '<div class="hs-intake"><div><label class="hs-button"><input type="file" accept="image/*,.heic,.heif">'
        '<span class="hs-first">Choose a photo</span><span class="hs-next">Another photo</span></label>'
        '<p class="hs-hint">or drop or paste one anywhere</p></div>'
        f'<div><p class="hs-hint">Examples</p><ul class="hs-examples">{items}</ul></div><p role="alert"></p></div>'
    )


def _thumbnail(path: Any) -> str:
    with Image.open(path) as image:
        return data_uri(image, _THUMBNAIL_SIDE)


def message(title: str, text: str, kind: str = "hint") -> str:
    """Return a message box; `kind` is `hint` or `problem`."""
    text = text[:1].upper() + text[1:]
    return (
        f'<div class="hs-message {kind}" data-say="{escape(f"{title}. {text}")}">'
        f"<h2>{escape(title)}</h2><p>{escape(text)}</p></div>"
    )


def photo(image: Image.Image, faces: Sequence[SeenFace], metrics: Mapping[str, Any]) -> str:
    """Return the verdict on each face, only one of them visible, and the photo with a numbered button per face.

    Args:
        image: the photo.
        faces: faces found in the photo.
        metrics: metrics of the model on its test images.
    """
    if not faces:
        hint = "No face, no verdict. Detection works best on large, upright faces seen from the front."
        return message("No face found", hint) + (
            '<button type="button" class="hs-link" data-whole>This is a face crop: classify the whole picture</button>'
        )
    boxes = "".join(_box(image, face.prediction, index) for index, face in enumerate(faces))
    strip = "".join(_strip_button(face, index) for index, face in enumerate(faces))
    one = len(faces) == 1
    parts = [
        *(_answer(faces, index) for index in range(len(faces))),
        f'<div class="hs-photo{" one" if one else ""}" style="--ratio:{image.width / image.height:.4f}">'
        f'<img src="{data_uri(image, _PHOTO_SIDE)}" alt="Your photo">'
        f"{boxes}</div>",
        "" if one else f'<div class="hs-strip" role="group" aria-label="Faces">{strip}</div>',
        *(_bars(face.prediction, index, metrics) for index, face in enumerate(faces)),
    ]
    return f'<section class="hs-result" aria-label="Result">{"".join(parts)}</section>'


def _answer(faces: Sequence[SeenFace], index: int) -> str:
    prediction = faces[index].prediction
    about = f"Face {index + 1} of {len(faces)}" if len(faces) > 1 else ""
    if prediction.note:
        about += f" ({prediction.note})"
    if prediction.box is None:
        about = "The whole picture was classified as one face"
    answer = sentence(prediction)
    return (
        f'<div class="hs-answer" data-face="{index}" data-say="{escape(f"{about}: {answer}" if about else answer)}"'
        f"{' hidden' if index else ''}>{f'<p>{about}</p>' if about else ''}<h2>{escape(answer)}</h2></div>"
    )


def _box(image: Image.Image, prediction: SmilePrediction, index: int, kind: str = "button") -> str:
    if prediction.box is None:
        return ""
    left, top, right, bottom = prediction.box
    place = {
        "left": left / image.width,
        "top": top / image.height,
        "width": (right - left) / image.width,
        "height": (bottom - top) / image.height,
    }
    style = ";".join(f"{name}:{100 * share:.2f}%" for name, share in place.items())
    if kind == "div":
        return f'<div class="hs-face" style="{style};--class:{_color(prediction)}"><span>{index + 1}</span></div>'
    return _face_button(prediction, index, "hs-face", f"{style};", f"<span>{index + 1}</span>")


def _strip_button(face: SeenFace, index: int) -> str:
    picture = f'<img src="{data_uri(face.crop, _BADGE_SIDE)}" alt=""><span>{index + 1}</span>'
    return _face_button(face.prediction, index, "hs-badge", "", f"{picture}{escape(short(face.prediction))}")


def _face_button(prediction: SmilePrediction, index: int, kind: str, style: str, inside: str) -> str:
    name = escape(f"Face {index + 1}: {short(prediction)}")
    return (
        f'<button type="button" class="{kind}" data-face="{index}" aria-pressed="{str(index == 0).lower()}" '
        f'aria-label="{name}" title="{name}" style="{style}--class:{_color(prediction)}">{inside}</button>'
    )


def _bars(prediction: SmilePrediction, index: int, metrics: Mapping[str, Any]) -> str:
    colors = class_colors(prediction.labels)
    bars = "".join(_bar(word(name), p, colors[name]) for name, p in (prediction.probabilities or {}).items())
    record = track_record(prediction, metrics)
    return (
        f'<div class="hs-bars" data-face="{index}"{" hidden" if index else ""}>{bars}'
        f"{f'<p>{escape(record)}</p>' if record else ''}</div>"
    )


def _color(prediction: SmilePrediction) -> str:
    """Return the colour of the class that the sentence names; grey if it names none."""
    return class_colors(prediction.labels).get(claim(prediction) or "", _GREY)


def _bar(name: str, probability: float, color: str) -> str:
    shown = percent(probability)
    return (
        f'<div class="hs-bar"><span>{escape(name)}</span><span>{shown}</span>'
        f'<div role="meter" aria-label="{escape(name)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * probability:.0f}" aria-valuetext="{shown}" style="--class:{color}">'
        f'<div style="width:{100 * probability:.1f}%"></div></div></div>'
    )


def frame(image: Image.Image, faces: Sequence[SeenFace], number: int) -> str:
    """Return the answer to a camera frame: boxes to overlay on the video, and a sentence per face.

    Args:
        image: the frame.
        faces: faces found in the frame.
        number: number of the frame, to match the answer to it.
    """
    boxes = "".join(_box(image, face.prediction, index, "div") for index, face in enumerate(faces))
    said = [sentence(face.prediction) for face in faces] or ["No face found."]
    lines = [f"{index}. {line}" for index, line in enumerate(said, start=1)] if len(said) > 1 else said
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div data-number="{number}"><div class="hs-boxes">{boxes}</div><div class="hs-lines">{text}</div></div>'


def heat_map(explanation: Explanation) -> str:
    """Return the input of the network beside its heat map."""
    label = word(explanation.label)
    if not explanation.heat.any():
        return f"<p>No part of the picture is stronger evidence for “{escape(label)}” than another.</p>"
    upper, lower = percent(explanation.upper_share), percent(explanation.lower_share)
    if explanation.drop is None:
        how = "Brighter areas counted more, by the gradients of the network (HiResCAM)."
    else:
        how = (
            f"Brighter areas counted more: covering the brightest one lowers the probability of “{escape(label)}” by "
            f"{100 * explanation.drop:.1f} percentage points (occlusion)."
        )
    return (
        '<div class="hs-heat" data-say="The heat map is ready."><div>'
        f'<figure><img src="{data_uri(explanation.image)}" alt="The face as the model sees it">'
        "<figcaption>Input of the model</figcaption></figure>"
        f'<figure><img src="{data_uri(explanation.overlay())}" alt="Heat map: {upper} on the upper half, {lower} on '
        f'the lower half"><figcaption>Evidence for “{escape(label)}”</figcaption></figure></div>'
        f"<p>{upper} of the heat is on the upper half with the eyes, {lower} on the lower half with the mouth. "
        f"{how}</p></div>"
    )


def batch(predictions: Sequence[SmilePrediction], faces: Sequence[SeenFace]) -> str:
    """Return the results for many photos: number of verdicts, files that could not be read with the reason, faces."""
    failed = [prediction for prediction in predictions if prediction.error is not None]
    without_face = sum(prediction.note == NO_FACE for prediction in predictions)
    said = counted(len(faces), "verdict")
    said += f", no face in {counted(without_face, 'photo')}" if without_face else ""
    said += f", {counted(len(failed), 'file')} could not be read" if failed else ""
    cut = any(prediction.note and prediction.label for prediction in predictions)
    hint = (
        f"<p>In photos with more than {MAX_FACES} faces, only the {MAX_FACES} largest were classified.</p>"
        if cut
        else ""
    )
    errors = "".join(
        f"<li><strong>{escape(prediction.source or 'a file')}</strong> {escape(_reason(prediction))}</li>"
        for prediction in failed
    )
    errors = f"<ul class=hs-errors>{errors}</ul>" if errors else ""
    return f'<h2 data-say="{said}">{said}</h2>{hint}{errors}{_gallery(faces)}'


def _reason(prediction: SmilePrediction) -> str:
    """Return the error without the file name, which is shown before it."""
    return (prediction.error or "").removeprefix(f"{prediction.source}: ").removeprefix(f"{prediction.source} ")


def _gallery(faces: Iterable[SeenFace]) -> str:
    items = []
    for prediction, crop in faces:
        words, name = escape(short(prediction)), escape(prediction.source or "")
        items.append(
            f'<figure style="--class:{_color(prediction)}"><img src="{data_uri(crop, _THUMBNAIL_SIDE)}" alt="">'
            f"<figcaption><strong>{words}</strong><span>{name}</span></figcaption></figure>"
        )
    return f'<div class="hs-gallery">{"".join(items)}</div>' if items else ""


def table(predictions: Iterable[SmilePrediction]) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows for all files that could be read, with numeric percentages for sorting, or None."""
    read = [prediction for prediction in predictions if prediction.error is None]
    asked = ["smiling %"] * bool(read and read[0].labels.smile_ids)
    asked += ["genuine %"] * bool(read and read[0].labels.tells_genuine)
    rows = []
    for prediction in read:
        smiling, genuine = prediction.p_smile, prediction.p_genuine_given_smile
        shares = (smiling, genuine if smiling is not None and smiling > 0.5 else None)[: len(asked)]
        cells = (None if share is None else round(100 * share) for share in shares)
        rows.append([prediction.source or "", short(prediction), *cells])
    return ["file", "verdict", *asked], rows


def people_colors(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each person, none of them that of a verdict.

    >>> people_colors(["person 1"])
    {'person 1': '#8250c4'}
    """
    return dict(zip(names, cycle(_PEOPLE)))


def clip(seen: Clip, limit: float) -> str:
    """Return the people in a clip, and each smile at its strongest moment."""
    cut = f" The first {limit:.0f} seconds were analysed." if seen.seconds > limit - 1 else ""
    if not seen.people:
        return message("No face found", f"No face was found in any frame of the clip.{cut}")
    colors = people_colors(seen.people)
    who = "".join(
        f'<figure style="--class:{colors[name]}"><img src="{data_uri(crop, _BADGE_SIDE)}" alt="">'
        f"<figcaption>{name}</figcaption></figure>"
        for name, crop in seen.people.items()
    )
    items = [
        f'<figure style="--class:{colors[name]}"><img src="{data_uri(crop, 2 * _THUMBNAIL_SIDE)}" alt="">'
        f"<figcaption><strong>{seconds:.1f} s, {name}</strong> {escape(sentence(prediction))}</figcaption></figure>"
        for seconds, name, prediction, crop in seen.peaks
    ]
    length = counted(max(1, round(seen.seconds)), "second") if seen.seconds >= 0.5 else "less than a second"
    smiles = f"{counted(len(items), 'smile') if items else 'No smile'} in {length}"
    peaks = f'<div class="hs-gallery hs-wide">{"".join(items)}</div>'
    shown = {0: "", 1: ", here at its strongest"}.get(len(items), ", each at its strongest")
    said = f"{smiles}{shown}."
    return f'<h2 data-say="{said}">{said}</h2><p>{cut}</p>{peaks}<h2>Who is who</h2><div class="hs-people">{who}</div>'


def download(name: str, text: str) -> str:
    """Return a link that saves `text` as a file."""
    content = base64.b64encode(text.encode()).decode()
    return f'<a class="hs-button" download="{escape(name)}" href="data:text/csv;base64,{content}">Download {name}</a>'


def data_uri(image: Image.Image, longest_side: int | None = None) -> str:
    """Return the picture as a data URI, scaled down if a side is longer than `longest_side`."""
    if longest_side:
        image = image.copy()
        image.thumbnail((longest_side, longest_side))
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
