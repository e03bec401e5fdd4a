"""Write a detector's weights once and for all as safetensors, in our names, with config and classes in the file.

python scripts/convert_checkpoint.py IN.ckpt OUT.safetensors                            # a checkpoint of ours
python scripts/convert_checkpoint.py IN.ckpt OUT.safetensors dataset=gen4 model=maxvit_yolox/default   # another's

IN is any file that weights=FILE takes: ours, RVT's and its forks', bare state dicts. A file that tells no config needs
dataset=NAME and model=NAME, with any of their keys. weights_key=KEY chooses among several sets of weights,
trust_checkpoint=true unpickles a file that holds more than data. checkpoint=OUT.safetensors in validation.py and
weights=OUT.safetensors in train.py take the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from config.errors import UserError
from config.loading import load_validation_config
from config.schema import Config
from config.search_path import add_config_dir
from models.detector import Detector
from models.weights.portable import SUFFIX, write_portable
from models.weights.pretrained import Wanted, load_into
from modules.run.config_in_file import STAND_IN, TOLD, config_in_file

OF_THE_FILE = ("weights_key", "trust_checkpoint")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("target", type=Path, metavar="OUT.safetensors")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see above")
    add_config_dir(parser)
    options = parser.parse_intermixed_args(arguments)
    try:
        lines = convert(options.source, options.target, options.config_dirs, options.overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def convert(source: Path, target: Path, config_dirs: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Write `target`; returns what there is to say. Raises UserError for a file or config that does not do."""
    if target.suffix != SUFFIX:
        raise UserError(f"{target}: its name must end in {SUFFIX}")
    if target.exists():
        raise UserError(f"{target} is there already: remove it first, or give another name")
    config = _config(source, config_dirs, overrides)
    detector = Detector(config.model, config.dataset.num_classes, config.partition_size)
    lines = load_into(detector, config.model, source, Wanted.of(config))
    write_portable(target, detector.state_dict(), _public(config))
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    classes = ", ".join(config.dataset.classes)
    return [*lines, f"{target}: {parameters / 1e6:.1f} M parameters; classes {classes}"]


def _config(source: Path, config_dirs: Sequence[str], overrides: Sequence[str]) -> Config:
    """The file's own, or the one of the overrides where they choose any."""
    about_file = [text for text in overrides if text.lstrip("+").partition("=")[0] in OF_THE_FILE]
    chosen = [text for text in overrides if text not in about_file]
    if chosen or config_dirs:
        path = [] if any(text.startswith("dataset.path=") for text in chosen) else ["dataset.path=."]
        return load_validation_config([*config_dirs, *overrides, *path, f"checkpoint={source}"])
    stated = load_validation_config([*STAND_IN, *about_file, f"checkpoint={source}"])
    config = config_in_file(source, stated.trust_checkpoint)
    return config.model_copy(update={key: getattr(stated, key) for key in OF_THE_FILE})


def _public(config: Config) -> dict[str, object]:
    """What tells how to use the weights, as JSON, without the folders of the machine that they were trained on."""
    values = config.model_dump(mode="json", include=set(TOLD))
    values["dataset"]["path"] = "."
    return values


if __name__ == "__main__":
    sys.exit(main())
