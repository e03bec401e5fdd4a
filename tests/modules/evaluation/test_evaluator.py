"""Behaviour of modules/evaluation/evaluator.py; the reference's numbers are in golden/evaluation.npz."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from config.loading import load_dataset_config
from config.schema import DatasetConfig, EvaluationConfig
from modules.evaluation import coco
from modules.evaluation.evaluator import Evaluation, EvaluationResult, matches_of
from modules.evaluation.protocol import apply_box_filter
from tests.evaluations import CAR, ELSEWHERE, HIT, SETTINGS, add, boxes_of, found, result_of

# read whole: forked processes would share an open file and its position
GOLDEN = dict(np.load(Path(__file__).parents[2] / "golden" / "evaluation.npz"))
CASES = {  # name: (boxes, data set, number of classes)
    "A_gen1": ("A_gen1", "gen1", 2),
    "B_gen4_ds2": ("B_gen4_ds2", "gen4", 3),
    "C_gen4_full": ("C_gen4_full", "gen4_full", 3),
    "B8": ("B_gen4_ds2", "gen4", 8),
}


def dataset_config(name: str, num_classes: int) -> DatasetConfig:
    dataset = load_dataset_config([f"dataset={name.removesuffix('_full')}"])
    classes = tuple(f"class {index}" for index in range(num_classes))
    full = {"downsample_by_factor_2": False} if name.endswith("_full") else {}
    return dataset.model_copy(update={"classes": classes, "class_groups": {}} | full)


def frames_of(name: str) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Time, ground truth, predictions and their objectness of every frame: the entries of a case.

    Case C holds whole recordings, whose predictions belong to a frame when they lie within 50 ms of it.
    """
    arrays = {}
    for kind, key in (("gt", "gt"), ("dt", "dt"), ("obj", "dt_obj_conf")):
        offsets = GOLDEN[f"{name}__{'dt' if kind == 'obj' else kind}_offsets"]
        arrays[kind] = np.split(GOLDEN[f"{name}__{key}"], offsets[1:-1])
    entries = list(zip(arrays["gt"], arrays["dt"], arrays["obj"], strict=True))
    if not name.startswith("C"):
        entries = [entry for entry in entries if len(entry[0]) + len(entry[1])]
        return [(int(np.concatenate([gt["t"], dt["t"]])[0]), gt, dt, objectness) for gt, dt, objectness in entries]
    frames = []
    for gt, dt, objectness in entries:
        for t_us in np.unique(gt["t"]):
            near = (abs(dt["t"] - t_us) <= 50_000) & (dt["t"] > 500_000)
            frames.append((int(t_us), gt[gt["t"] == t_us], dt[near], objectness[near]))
    return frames


def detections_of(dt: np.ndarray, objectness: np.ndarray) -> torch.Tensor:
    corners = [dt["x"], dt["y"], dt["x"] + dt["w"], dt["y"] + dt["h"]]
    columns = [*corners, objectness, dt["class_confidence"], dt["class_id"]]
    return torch.from_numpy(np.column_stack(columns).astype(np.float32))


def add_golden(evaluation: Evaluation, name: str, keep: Callable[[int], bool] = lambda index: True) -> None:
    for index, (t_us, gt, dt, objectness) in enumerate(frames_of(name)):
        if not keep(index):
            continue
        boxes = np.column_stack([gt["class_id"], gt["x"] + gt["w"] / 2, gt["y"] + gt["h"] / 2, gt["w"], gt["h"]])
        evaluation.add(
            sequence_names=[f"{index:03d}"],
            t_us=torch.tensor([t_us]),
            detections=[detections_of(dt, objectness)],
            boxes=torch.from_numpy(boxes.astype(np.float32)),
            box_image=torch.zeros(len(gt), dtype=torch.int64),
            event_count=torch.tensor([0]),
        )


def golden_result(case: str, score: str) -> tuple[EvaluationResult, DatasetConfig, str]:
    boxes, dataset_name, num_classes = CASES[case]
    dataset = dataset_config(dataset_name, num_classes)
    evaluation = Evaluation(dataset, EvaluationConfig(score=score, confusion_threshold=0.25))
    add_golden(evaluation, boxes)
    return evaluation.result(), dataset, f"{case}_{'class_conf' if score == 'class' else 'obj_x_class'}"


@pytest.mark.parametrize("score", ["class", "product"])
@pytest.mark.parametrize("case", CASES)
def test_figures_equal_the_reference(case: str, score: str) -> None:
    result, dataset, key = golden_result(case, score)
    expected = dict(zip(GOLDEN["metric_names"].tolist(), GOLDEN[f"rvt_{key}"].tolist(), strict=True))
    assert {name: result.metrics[name] for name in expected} == expected
    per_class = GOLDEN[f"rvt_{key}_perclass"]
    assert [c.AP for c in result.classes] == per_class[:, 0].tolist()
    assert [c.AP_50 for c in result.classes] == per_class[:, 1].tolist()

    kept = apply_box_filter(result.frames, dataset.eval_box_filter)
    curves = coco.accumulate(matches_of(kept, dataset.num_classes, score))
    for index, row in enumerate(GOLDEN[f"etram_{key}_perclass"].tolist()):
        assert list(curves.summary(index).values()) == row
    agnostic = coco.accumulate(matches_of(kept, dataset.num_classes, score, use_classes=False)).summary()
    assert list(agnostic.values())[:9] == GOLDEN[f"etram_{key}_overall"].tolist()


def test_conventions_of_others_have_names_of_their_own() -> None:
    """Whatever score is chosen: RVT's AP, and the class-agnostic one of eTraM's fork, rank by class confidence."""
    metrics = golden_result("B_gen4_ds2", "product")[0].metrics
    assert metrics["AP"] == GOLDEN["rvt_B_gen4_ds2_obj_x_class"][0]
    assert metrics["AP_class_confidence"] == GOLDEN["rvt_B_gen4_ds2_class_conf"][0]
    assert metrics["AP_class_agnostic"] == GOLDEN["etram_B_gen4_ds2_class_conf_overall"][0]


def test_classes_and_groups_tell_boxes_missed_and_false() -> None:
    result = result_of(
        ("a", 600_000, boxes_of(CAR, (0, 300, 200, 40, 80)), found(HIT)),
        ("a", 700_000, boxes_of(CAR), found(HIT, ELSEWHERE)),
    )
    by_name = {figures.name: figures for figures in (*result.classes, *result.groups)}
    car, pedestrian, bus = by_name["car"], by_name["pedestrian"], by_name["bus"]
    assert (car.boxes, car.missed, car.false) == (2, 0, 1)
    assert (pedestrian.boxes, pedestrian.missed, pedestrian.false, pedestrian.AP) == (1, 1, 0, 0)
    assert (bus.boxes, bus.AP) == (0, -1)
    assert by_name["large"].AP == car.AP == pytest.approx(1)
    assert by_name["medium"].AP == -1
    assert result.metrics["AP"] == (car.AP + 0) / 2
    assert result.metrics["AP_group/small"] == 0
    assert "AP/bus" not in result.metrics


def test_score_is_a_setting() -> None:
    """The false box has the higher class confidence and the lower product."""
    false = (300, 200, 380, 280, 0.1, 0.99, 1)
    frame = ("a", 600_000, boxes_of(CAR), found(HIT, false))
    by_product = result_of(frame).metrics
    by_class = result_of(frame, settings=EvaluationConfig(score="class", confusion_threshold=0.25)).metrics
    assert by_product["AP"] == pytest.approx(1)
    assert by_class["AP"] == pytest.approx(0.5)
    assert by_product["AP_class_confidence"] == by_class["AP_class_confidence"] == by_class["AP"]


def test_batches_and_their_order_change_nothing() -> None:
    frames = [
        ("b", 700_000, boxes_of(CAR), found(HIT, ELSEWHERE)),
        ("a", 600_000, boxes_of(CAR), found(ELSEWHERE)),
        ("a", 800_000, boxes_of(), found(HIT)),
        ("b", 800_000, boxes_of(CAR), found()),
    ]
    evaluation = Evaluation(load_dataset_config(["dataset=gen4"]), SETTINGS)
    for frame in reversed(frames):
        add(evaluation, frame)
    assert evaluation.result().metrics == result_of(*frames).metrics


def test_frame_seen_twice_counts_once() -> None:
    frame = ("a", 600_000, boxes_of(CAR), found(HIT))
    result = result_of(frame, frame)
    assert result.num_frames == 1
    assert result.classes[1].boxes == 1


def test_reset_forgets() -> None:
    evaluation = Evaluation(load_dataset_config(["dataset=gen4"]), SETTINGS)
    add(evaluation, ("a", 600_000, boxes_of(CAR), found(HIT)))
    evaluation.reset()
    assert evaluation.result().num_frames == 0


@pytest.mark.parametrize(
    ("frames", "ap"),
    [
        ([], -1),
        ([("a", 600_000, boxes_of(), found())], -1),
        ([("a", 600_000, boxes_of(), found(HIT))], -1),
        ([("a", 600_000, boxes_of(CAR), found())], 0),
        ([("a", 600_000, boxes_of(CAR), found((*HIT[:4], float("nan"), 0.9, 1)))], 0),
        ([("a", 600_000, boxes_of((9, *CAR[1:])), found((*HIT[:6], 9)))], -1),
    ],
    ids=["nothing", "empty frame", "no ground truth", "no predictions", "score is not a number", "unknown class"],
)
def test_empty_cases(frames: list, ap: float) -> None:
    result = result_of(*frames) if frames else Evaluation(load_dataset_config(["dataset=gen4"]), SETTINGS).result()
    assert result.metrics["AP"] == result.metrics["AP_class_agnostic"] == ap


def test_protocol_states_what_the_figures_depend_on() -> None:
    protocol = result_of(("a", 600_000, boxes_of(CAR), found(HIT)), ("a", 700_000, boxes_of(), found())).protocol
    assert protocol["box_filter_px"] == {"min_diagonal": 30, "min_side": 10, "skip_first_ms": 500}
    assert protocol["resolution_hw"] == [360, 640]
    assert (protocol["labelled_frames"], protocol["evaluated_frames"]) == (2, 1)
    assert (protocol["score"], protocol["split"]) == ("product", "val")
    assert protocol["versions"]["torch"] == torch.__version__


def test_ranks_together_give_what_one_gives(tmp_path: Path) -> None:
    """Two processes with half of the frames each, one frame in both."""
    # forked, because importing torch twice more takes many times as long as the test
    torch.multiprocessing.start_processes(_one_rank, args=(2, str(tmp_path)), nprocs=2, start_method="fork")
    single = Evaluation(dataset_config("gen4", 3), SETTINGS)
    add_golden(single, "B_gen4_ds2")
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == single.result().metrics


def _one_rank(rank: int, world_size: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    evaluation = Evaluation(dataset_config("gen4", 3), SETTINGS)
    add_golden(evaluation, "B_gen4_ds2", keep=lambda index: index % world_size == rank or index == 5)
    evaluation.gather()
    torch.save(evaluation.result().metrics, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_sizes_on_the_sensor_are_of_the_same_objects_at_any_resolution() -> None:
    """A box of 40 x 40 pixels at half resolution is medium there, and on the sensor, where it has 80 x 80; one of
    60 x 60 is medium there and large on the sensor.
    """
    medium, large = (1, 100, 100, 40, 40), (1, 300, 200, 60, 60)
    metrics = result_of(("a", 600_000, boxes_of(medium, large), found((80, 80, 120, 120, 0.9, 0.9, 1)))).metrics
    assert metrics["AP_M"] == pytest.approx(0.5, abs=0.01)
    assert (metrics["AP_M_sensor"], metrics["AP_L_sensor"], metrics["AP_S_sensor"]) == (pytest.approx(1), 0, -1)


def test_sequences_are_told_apart_the_worst_first() -> None:
    result = result_of(
        ("good", 600_000, boxes_of(CAR), found(HIT)),
        ("bad", 600_000, boxes_of(CAR), found(ELSEWHERE)),
        ("empty", 600_000, boxes_of(), found(HIT)),
    )
    told = [(each.name, round(each.AP, 9), each.boxes) for each in result.sequences]
    assert told == [("bad", 0, 1), ("good", 1, 1)]
