"""Events and boxes as pictures, for the validation callback and scripts/render.py."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from data.boxes import score as ranking
from data.boxes import xywh_from_cxcywh, xywh_from_xyxy
from modules.pictures.text import in_one_font

if TYPE_CHECKING:
    from torch import Tensor  # an exported network's films are drawn without it

BACKGROUND_RGB = (14, 17, 24)
POLARITY_RGB = ((64, 130, 255), (255, 176, 84))  # darker: blue, brighter: amber; told apart by the colour-blind, too
# Far apart from one another and from the events' blue and amber.
_PALETTE = (
    "#3ddc84",
    "#ff5c8a",
    "#ffe14d",
    "#4de3ff",
    "#b388ff",
    "#ff7a3d",
    "#f4f4f4",
    "#9ccc3c",
    "#e04dff",
    "#2fa8a0",
)
_MOST_IN_LEGEND = 20  # class names


@dataclass(frozen=True)
class PictureBoxes:
    """Boxes of one frame; `scores` is None for ground truth."""

    xywh: Float32[ndarray, "n 4"]  # left, top, width, height in pixels of the frame
    class_id: Int[ndarray, " n"]
    scores: Float32[ndarray, " n"] | None = None

    @classmethod
    def from_detections(cls, detections: Float32[Tensor, "m 7"], score: str, threshold: float) -> PictureBoxes:
        """Those of a network's detections whose score, `product` or `class`, reaches the threshold."""
        found = detections.detach().float().cpu().numpy()
        scores = ranking(found[:, 4], found[:, 5], score)
        shown = scores >= threshold
        return cls(xywh_from_xyxy(found[shown, :4]), found[shown, 6].astype(int), scores[shown])

    @classmethod
    def from_centres(cls, boxes: Float32[ndarray, "n 5"]) -> PictureBoxes:
        """Ground truth: class, centre x, centre y, width, height."""
        return cls(xywh_from_cxcywh(boxes[:, 1:]), boxes[:, 0].astype(int))


def class_rgb(class_id: int) -> tuple[int, int, int]:
    """The class' colour, the same in every picture."""
    if class_id < len(_PALETTE):
        red, green, blue = bytes.fromhex(_PALETTE[class_id][1:])
        return red, green, blue
    colour = colorsys.hsv_to_rgb(class_id * 0.618 % 1, 0.6, 1)  # golden ratio: neighbours lie far apart
    return round(colour[0] * 255), round(colour[1] * 255), round(colour[2] * 255)


def draw_events(frame: UInt8[ndarray, "channels h w"]) -> UInt8[ndarray, "h w 3"]:
    """Polarity gives the colour, number and recency of events the brightness.

    Args:
        frame: stacked histogram, channel = polarity * bins + bin, the last bin being the latest.
    """
    bins = frame.shape[0] // 2
    recency = np.linspace(0.35, 1.0, bins, dtype=np.float32)
    weight = np.einsum("pbhw,b->phw", frame.reshape(2, bins, *frame.shape[1:]).astype(np.float32), recency)
    total = weight.sum(axis=0)
    # One event must be seen, fifty must not blind.
    brightness = np.clip(0.45 + 0.55 * np.log1p(total) / np.log1p(12.0), 0, 1) * (total > 0)
    colours = np.array(POLARITY_RGB, np.float32)
    mixed = np.einsum("phw,pc->hwc", weight, colours) / np.maximum(total, 1e-6)[..., None]
    background = np.array(BACKGROUND_RGB, np.float32)
    picture = background + brightness[..., None] * (mixed - background)
    return picture.round().astype(np.uint8)


def draw_frame(
    frame: UInt8[ndarray, "channels h w"],
    classes: Sequence[str],
    predictions: PictureBoxes | None = None,
    truth: PictureBoxes | None = None,
    caption: str = "",
    width_px: int = 1280,
) -> Image.Image:
    """Events, predictions in their class' colour with name and score, ground truth as thin dashed lines; a caption.

    Frames are enlarged towards `width_px` by a whole factor, so that a pixel stays a square and text stays sharp.
    """
    events = draw_events(frame)
    scale = max(1, round(width_px / events.shape[1]))
    picture = Image.fromarray(events).resize(
        (events.shape[1] * scale, events.shape[0] * scale), Image.Resampling.NEAREST
    )
    overlay = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(overlay)
    # Fills first, then the ground truth, then the labels: nothing that must be read is covered.
    if predictions is not None:
        _draw_solid(draw, predictions, scale)
    if truth is not None:
        _draw_dashed(draw, truth, scale)
        _draw_labels(draw, truth, classes, scale, below=predictions is not None)
    if predictions is not None:
        _draw_labels(draw, predictions, classes, scale)
    if caption:
        caption, font = in_one_font(caption, 15, most=max(20, picture.width // 11))
        draw.rectangle(
            (0, picture.height - 26, draw.textlength(caption, font) + 20, picture.height), fill=(0, 0, 0, 150)
        )
        draw.text((10, picture.height - 13), caption, font=font, fill=(225, 228, 235), anchor="lm")
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def _draw_solid(draw: ImageDraw.ImageDraw, boxes: PictureBoxes, scale: int) -> None:
    for xywh, class_id in zip(boxes.xywh * scale, boxes.class_id, strict=True):
        left, top, width, height = xywh.tolist()
        colour = class_rgb(int(class_id))
        draw.rectangle((left, top, left + width, top + height), outline=colour, width=2, fill=(*colour, 20))


def _draw_dashed(draw: ImageDraw.ImageDraw, boxes: PictureBoxes, scale: int, dash: int = 7, gap: int = 5) -> None:
    """Thin white dashes: ground truth."""
    for left, top, width, height in (boxes.xywh * scale).tolist():
        right, bottom = left + width, top + height
        for x in np.arange(left, right, dash + gap):
            for y in (top, bottom):
                draw.line((x, y, min(x + dash, right), y), fill="white")
        for y in np.arange(top, bottom, dash + gap):
            for x in (left, right):
                draw.line((x, y, x, min(y + dash, bottom)), fill="white")


def _draw_labels(
    draw: ImageDraw.ImageDraw, boxes: PictureBoxes, classes: Sequence[str], scale: int, below: bool = False
) -> None:
    """Tags on top of the boxes, the best score last, so that it is on top; or quiet ones below. All in the picture."""
    size = 12 if below else 15
    height = size + 4
    order = np.argsort(boxes.scores, kind="stable") if boxes.scores is not None else range(len(boxes.xywh))
    for row in order:
        class_id = int(boxes.class_id[row])
        name = classes[class_id] if class_id < len(classes) else f"class {class_id}"
        text, font = in_one_font(name, size)
        if boxes.scores is not None:
            text += f" {100 * float(boxes.scores[row]):.0f}"
        x, y, _, box_height = (boxes.xywh[row] * scale).tolist()
        width = draw.textlength(text, font) + 8
        left = min(max(x, 0), draw.im.size[0] - width)
        top = min(max(y + box_height if below else y - height, 0), draw.im.size[1] - height)
        colour = (0, 0, 0) if below else class_rgb(class_id)
        luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        ink = (10, 12, 16) if luminance > 120 else (255, 255, 255)
        draw.rectangle((left, top, left + width, top + height), fill=(*colour, 130 if below else 235))
        draw.text((left + 4, top + height / 2), text, font=font, fill=ink, anchor="lm")


def draw_legend(classes: Sequence[str], width: int, has_truth: bool = True) -> Image.Image:
    """What colours and lines mean, on as many lines as the width asks for; of many classes the first."""
    line_height = 26
    entries: list[tuple[str, tuple[int, int, int] | None]] = [
        (name, class_rgb(i)) for i, name in enumerate(classes[:_MOST_IN_LEGEND])
    ]
    if len(classes) > _MOST_IN_LEGEND:
        entries.append((f"and {len(classes) - _MOST_IN_LEGEND} more classes", (0, 0, 0)))
    entries += [("events, brighter", POLARITY_RGB[1]), ("events, darker", POLARITY_RGB[0])]
    entries += [("ground truth", None)] if has_truth else []
    texts = [in_one_font(name, 13) for name, _ in entries]
    places, x, y = [], 10.0, 0
    for text, font in texts:
        length = font.getlength(text) + 36
        if x > 10 and x + length > width:
            x, y = 10.0, y + line_height
        places.append((x, y))
        x += length
    picture = Image.new("RGB", (width, y + line_height + 2), (0, 0, 0))
    draw = ImageDraw.Draw(picture)
    for (_, colour), (text, font), (x, y) in zip(entries, texts, places, strict=True):
        if colour is None:
            for dash in range(3):
                draw.line((x + 5 * dash - 2, y + 14, x + 5 * dash, y + 14), fill="white")
        else:
            draw.rectangle((x, y + 9, x + 10, y + 19), fill=colour)
        draw.text((x + 16, y + 14), text, font=font, fill=(215, 218, 225), anchor="lm")
    return picture
