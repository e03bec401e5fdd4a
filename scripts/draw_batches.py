"""A sheet of what a training reads, augmented as it will see it: events, and the labels as dashed lines.

    python scripts/draw_batches.py OUT.png WORDS_OF_TRAIN.PY ... [steps=4] [epoch=0]

A row for each of `steps` consecutive steps, a column for each row of the batch (four where batch_size.train is not
given): the last labelled frame of that chunk, or its last frame where none is labelled. Streams go on from row to row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from config.command_line import errors_without_traceback
from config.errors import UserError
from config.loading import load_train_config
from config.schema import TrainConfig
from data.dataset import ChunkDataset
from data.plan import ChunkRead
from modules.data import EventDataModule
from modules.pictures.frames import PictureBoxes, draw_frame, draw_legend
from scripts.words import Words, help_where_asked

_WIDTH_PX = 640  # of a cell, about


def main() -> None:
    help_where_asked(__doc__)
    with errors_without_traceback():
        words = Words(sys.argv[1:])
        if len(words.paths) != 1 or words.paths[0].suffix.lower() not in (".png", ".jpg"):
            raise UserError("give OUT.png or OUT.jpg; --help tells more")
        steps = words.whole_number("steps", 1, 100) or 4
        epoch = words.whole_number("epoch", 0, 10**6) or 0
        typed = words.overrides
        few = [] if any(word.startswith("batch_size.train=") for word in typed) else ["batch_size.train=4"]
        draw(words.paths[0], load_train_config([*typed, *few]), epoch, steps)


def draw(out: Path, config: TrainConfig, epoch: int, steps: int) -> None:
    """Write the sheet."""
    data = EventDataModule(config)
    data.require_tracks()
    plan, dataset = data.training_plan(), ChunkDataset(data.index("train"), config.dataset)
    steps = min(steps, plan.steps_per_epoch)
    rows = [list(cells(dataset, plan.batch(epoch, step), config)) for step in range(steps)]
    width, height = rows[0][0].size
    legend = draw_legend(config.dataset.classes, width * len(rows[0]))
    sheet = Image.new("RGB", (legend.width, height * steps + legend.height))
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            sheet.paste(cell, (x * width, y * height))
    sheet.paste(legend, (0, height * steps))
    sheet.save(out)
    print(f"{out}: steps 0 to {steps - 1} of {plan.steps_per_epoch} of epoch {epoch}")


def cells(dataset: ChunkDataset, reads: list[ChunkRead], config: TrainConfig) -> Iterator[Image.Image]:
    """A picture of each row of a batch."""
    for read in reads:
        batch = dataset[read]
        for fault in batch.faults:
            raise UserError(fault)
        labelled = batch.labelled_frames.tolist()
        index = labelled[-1] if labelled else read.stop - read.start - 1
        boxes = batch.boxes[batch.box_image == len(labelled) - 1].numpy() if labelled else None
        name = f"{batch.sequence_names[0]}, frame {read.start + index}"
        kind = "alone" if read.is_random else "stream begins" if read.is_first else "stream"
        yield draw_frame(
            batch.frames[index, 0].numpy(),
            config.dataset.classes,
            truth=None if boxes is None else PictureBoxes.from_centres(boxes),
            caption=f"{name} ({kind})" if labelled else f"{name} ({kind}, not labelled)",
            width_px=_WIDTH_PX,
        )


if __name__ == "__main__":
    main()
