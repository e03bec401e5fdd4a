"""A run as a folder that people commit: hypothesis, command, config, code state, results, figures, comparison.

    python scripts/export_experiment.py RUN OUT [--baseline RUN] [--checkpoint-url URL] [--split val|test]

RUN is a run's folder, OUT a new one. The results are those of the run and of its newest validation that stored
predictions. Absolute paths become <local>/NAME, the machine's name is left out, and a secret of the environment in
any file ends the command before anything is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from config.command_line import errors_without_traceback
from modules.reports.experiment import export


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--baseline", type=Path, metavar="RUN", help="a run to compare with")
    parser.add_argument("--checkpoint-url", metavar="URL", help="where others can get the best checkpoint")
    parser.add_argument("--split", choices=["val", "test"], default="val", help="whose stored predictions are told")
    arguments = parser.parse_args()
    with errors_without_traceback():
        export(arguments.run, arguments.out, arguments.baseline, arguments.checkpoint_url, arguments.split)
        print(f"Experiment: {arguments.out}")


if __name__ == "__main__":
    main()
