"""Tables and one page of figures of a validation, from its stored predictions; the network does not run.

    python scripts/report.py RUN_OR_VALIDATION_FOLDER

Of a run's folder the newest validation in it is taken. Writes report/{report.md, report.png, *.csv} into the
validation's folder and prints the tables.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from config.command_line import errors_without_traceback
from config.errors import UserError
from modules.evaluation.results import StoredProtocol, read_predictions, read_results
from modules.pictures.figures import draw_report
from modules.reports.analysis import analyse
from modules.reports.run_table import stages_of
from modules.reports.stages import stages_table
from modules.reports.tables import Table, figures_table, measured, sequences_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RUN_OR_VALIDATION_FOLDER")
    arguments = parser.parse_args()
    with errors_without_traceback():
        write_report(find_validation(arguments.folder))


def find_validation(folder: Path) -> Path:
    """The folder itself if it holds stored predictions, else the newest one below it that does."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Give a run's or a validation's folder")
    found = [path.parent for path in folder.rglob("frames.csv") if (path.parent / "results.json").is_file()]
    if not found:
        raise UserError(f"{folder}: no stored predictions in it. Run validation.py with a checkpoint of the run first")
    return folder if folder in found else max(found, key=lambda path: (path / "frames.csv").stat().st_mtime)


def write_report(folder: Path) -> None:
    """Write report/ and print its tables."""
    results = read_results(folder)
    protocol = results["protocol"]
    analysis = analyse(read_predictions(folder), protocol)
    title = f"{protocol['dataset']}, {protocol['split']}: AP {results['metrics']['AP']:.4f}"
    tables = {
        "metrics": Table(
            "Metrics", ["metric", "value"], [[k, measured(v)] for k, v in results["metrics"].items() if "/" not in k]
        ),
        "classes": figures_table("Classes", [asdict(each) for each in results["classes"]]),
        "groups": figures_table("Class groups", [asdict(each) for each in results["groups"]]),
        "sequences": sequences_table(
            "Sequences, the worst first", [asdict(each) for each in results.get("sequences", [])]
        ),
        "stages": stages_table(stages_of(folder.parent)),
        "recall_by_size": analysis.by_size,
        "ap_by_time": analysis.by_time,
        "ap_by_event_rate": analysis.by_event_rate,
    }
    tables = {name: table for name, table in tables.items() if table.rows}
    if isinstance(analysis.intervals, Table):
        tables = {"intervals": analysis.intervals, **tables}
    target = folder / "report"
    try:
        _make_own_folder(target)
        for name, table in {**tables, "precision_recall": analysis.precision_recall}.items():
            _new(target / f"{name}.csv").write_text(table.format("csv"))
        _new(target / "report.md").write_text(_markdown(title, protocol, tables, analysis.intervals))
        page = draw_report(analysis, f"{title}   ({protocol['evaluated_frames']:,} frames)")
        page.save(_new(target / "report.png"))
    except OSError as error:
        raise UserError(f"{error.filename or target} cannot be written: {error.strerror or error}") from error
    if isinstance(analysis.intervals, str):
        print(f"Intervals: {analysis.intervals}")
    print(title, *(table.format("text") for table in tables.values()), f"Report: {target}", sep="\n")


def _make_own_folder(target: Path) -> None:
    """Of a validation that may come from somebody else."""
    if target.is_symlink():
        raise UserError(f"{target} is a link, to {target.readlink()}: the report would be written there. Remove it")
    target.mkdir(exist_ok=True)


def _new(path: Path) -> Path:
    """The path without what is there: what is written through a link, or into a pipe, would go elsewhere."""
    path.unlink(missing_ok=True)
    return path


def _markdown(title: str, protocol: StoredProtocol, tables: dict[str, Table], intervals: Table | str) -> str:
    box_filter = protocol["box_filter_px"]
    (height, width), sensor = protocol["resolution_hw"], protocol.get("sensor_hw")
    of_sensor = f", in pixels of these frames; the sensor has {sensor[1]} x {sensor[0]}" if sensor else ""
    thresholds = f"confidence threshold {protocol['confidence_threshold']}, NMS {protocol['nms_threshold']}"
    facts = [
        f"Boxes kept: side ≥ {box_filter['min_side']:g} px, diagonal ≥ {box_filter['min_diagonal']:g} px, "
        f"later than {box_filter['skip_first_ms']:g} ms, at {width} x {height}{of_sensor}.",
        f"Frames: {protocol['evaluated_frames']:,} with ground truth of {protocol['labelled_frames']:,} labelled.",
        f"Score: {protocol['score']}; {thresholds}.",
        f"Missed and false are counted at score ≥ {protocol['confusion_threshold']:g}. A dash: no ground truth.",
    ]
    facts += [f"Intervals: {intervals}."] if isinstance(intervals, str) else []
    facts += [f"Compares with: {compares_with}."] if (compares_with := protocol.get("compares_with")) else []
    notes = [f"{name}: {note}." for name, note in protocol["metrics"].items()]
    body = "\n".join(table.format("markdown") for table in tables.values())
    items = "\n".join(f"- {line}" for line in facts + notes)
    return f"# {title}\n\n{items}\n\n![figures](report.png)\n\n{body}"


if __name__ == "__main__":
    main()
