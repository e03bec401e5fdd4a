"""Settings that are each allowed, but contradict each other or the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.loading import load, load_train_config

ETRAM = ("model=maxvit_yolox/plain_lstm", "dataset=gen4", "dataset.path=DATA")


def said_about(overrides: list[str], *, on_this_machine: bool = False) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load("train", overrides, on_this_machine=on_this_machine)
    return {problem.key: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (["dataset=gen4_1mpx"], "model.head.num_classes", "is 8, but dataset=gen4_1mpx has 3 classes: pedestrian"),
        (["model.head.num_classes=3"], "model.head.num_classes", "model.head.num_classes=null takes the data set's"),
        (["model.backbone.input_channels=10"], "model.backbone.input_channels", "frames have 20 channels"),
        (["model.backbone.in_res_hw=[360,640]"], "model.backbone.in_res_hw", "make it [384, 640]"),
        (
            ["model.backbone.stage.attention.partition_size=[8,10]"],
            "model.backbone.stage.attention.partition_size",
            "make it [6, 10]",
        ),
        (["model.backbone.embed_dim=48"], "model.backbone.stage.attention.dim_head", "32 does not divide the 48"),
        (
            ["model.backbone.stage.lstm.dws_conv=true", "model.backbone.stage.lstm.dws_conv_kernel_size=4"],
            "model.backbone.stage.lstm.dws_conv_kernel_size",
            "4 is even",
        ),
        (
            ["model.backbone.stage.cell=s5", "~model.backbone.stage.s5"],
            "model.backbone.stage.s5",
            "cell=s5 reads its settings there",
        ),
        (["dataset.ev_repr_name=stacked_histogram_dt=20_nbins=10"], "dataset.ev_repr_name", "says 20 ms and 10 bins"),
        (["training.freeze=neck"], "training.freeze", "no part 'neck'; parts: backbone, backbone.stages.1,"),
        (["training.freeze=[backbone.stages.0-2]"], "training.freeze", "no part 'backbone.stages.0-2'"),
        (["training.freeze=[fpn,backbone.stages.1-4,head]"], "training.freeze", "nothing is left to train"),
        (["training.freeze=[backbone]"], "training.freeze", "drawn at random. Add weights=FILE"),
        (
            ["training.early_stopping.patience=2", "validation.limit_val_batches=0"],
            "training.early_stopping.patience",
            "leaves them out",
        ),
        (["dataset.ev_repr_name=voxels"], "dataset.ev_repr_name", "stacked_histogram_dt=<ms>_nbins=<bins>"),
        (["dataset.class_groups.small=[cat]"], "dataset.class_groups.small", "'cat' is no class"),
        (["dataset.preprocessing.class_ids.1=cat"], "dataset.preprocessing.class_ids.1", "'cat' is no class"),
        (["dataset.class_map={car: bus}"], "dataset.stored_classes", "does not say which those are"),
        (
            ["dataset.data_augmentation.stream.rotate.min_angle_deg=9"],
            "dataset.data_augmentation.stream.rotate.min_angle_deg",
            "greater",
        ),
        (
            ["dataset.data_augmentation.random.zoom.zoom_in.factor.min=2"],
            "dataset.data_augmentation.random.zoom.zoom_in.factor.min",
            "greater than max",
        ),
        (
            ["+dataset.data_augmentation.stream.zoom.zoom_in={factor: {min: 1, max: 2}}"],
            "dataset.data_augmentation.stream.zoom.zoom_in",
            "streams only zoom out",
        ),
        (["batch_size.train=1"], "batch_size.train", "one lane of each kind"),
        (
            [
                *("batch_size.train=1", "dataset.train.sampling=stream"),
                *("dataset.resolution_hw=[60,60]", "model.backbone.partition_split_32=1"),
            ],
            "batch_size.train",
            "the last stage's map is one cell",
        ),
        (
            ["dataset.train.sampling=random", "dataset.train.repeat_threshold=0.1"],
            "dataset.train.repeat_threshold",
            "random.weighted_sampling",
        ),
        (
            ["dataset.train.sampling=stream", "dataset.train.random.weighted_sampling=true"],
            "dataset.train.random.weighted_sampling",
            "train.repeat_threshold",
        ),
        (["training.lr_scheduler.total_steps=10"], "training.lr_scheduler.total_steps", "would end before"),
        (["resume=latest", "weights=a.ckpt"], "weights", "contradicts resume"),
        (["weights_classes=new"], "weights_classes", "no file is given"),
        (["weights_partial=true"], "weights_partial", "no file is given"),
        (["weights_key=ema_model"], "weights_key", "no file is given"),
    ],
)
def test_contradictions(overrides: list[str], key: str, message: str) -> None:
    said = said_about([*ETRAM, *overrides])
    assert list(said) == [key]
    assert message in said[key]


@pytest.mark.parametrize(
    ("typed", "key", "said"),
    [
        (["dataset.frame_hw=[540,900]"], "dataset.frame_hw", "[540, 960] does not"),
        (["dataset.frame_hw=[1080,1920]"], "dataset.frame_hw", "more than the sensor's [720, 1280]"),
        (
            ["dataset.frame_hw=[540,960]", "model.backbone.stage.attention.partition_size=[6,10]"],
            "model.backbone.stage.attention.partition_size",
            "partition_split_32=3 makes it [6, 10]",
        ),
        (["model.backbone.stem.patch_size=5"], "model.backbone.stem.patch_size", "3 or 2"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(typed: list[str], key: str, said: str) -> None:
    assert said in said_about([*ETRAM, *typed])[key]


@pytest.mark.parametrize(
    ("typed", "key", "said"),
    [
        (["size_weight.weight=3"], "size_weight.kind", "exponential, step or linear"),
        (["size_weight.kind=exponental"], "size_weight.kind", "did you mean exponential?"),
        (["size_weight.kind=step", "size_weight.medium_area=64"], "size_weight.medium_area", "small_area=1024"),
        (["size_weight.kind=step", "size_weight.weight=0.5"], "size_weight.weight", "greater than or equal to 1"),
        (["class_weight.beta=0.9"], "class_weight.kind", "effective_number"),
        (["class_weight.kind=inverse_frequency", "class_weight.beta=0.9"], "class_weight.beta", "effective_number"),
        (["weights={iou: 0, objectness: 0, classification: 0}"], "weights", "nothing would be learned"),
        (["focal.parts=[class]"], "focal.parts", "gamma is 0"),
        (["focal.gamma=0.5"], "focal.gamma", "at least 1"),
        (["name=my:Loss", "size_weight.kind=step"], "size_weight", "my:Loss has model.loss.options"),
    ],
)
def test_a_setting_of_the_loss_that_would_do_nothing_or_harm_is_refused(typed: list[str], key: str, said: str) -> None:
    assert said in said_about([*ETRAM, *(f"model.loss.{text}" for text in typed)])[f"model.loss.{key}"]


def test_a_loss_by_import_path_has_options_and_the_projects_has_weights() -> None:
    assert load_train_config([*ETRAM, "model.loss.name=my:Loss", "+model.loss.options.a=1"]).model.loss.options == {
        "a": 1
    }
    assert "did you mean yolox?" in said_about([*ETRAM, "model.loss.name=yolo"])["model.loss.name"]
    assert "model.loss.weights" in said_about([*ETRAM, "+model.loss.options.a=1"])["model.loss.options"]
    said = said_about([*ETRAM, "model.loss.name=my:Loss", "model.loss.weights.iou=3"])
    assert "my:Loss has model.loss.options" in said["model.loss.weights"]


def test_an_invalid_value_does_not_hide_a_contradiction_in_its_section() -> None:
    said = said_about([*ETRAM, "dataset.train.sampling=steam", "+dataset.typo=1", "model.head.num_classes=3"])
    assert set(said) == {"dataset.train.sampling", "dataset.typo", "model.head.num_classes"}


def test_files_and_devices_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.checks.machine.count_gpus", lambda: 1)
    (tmp_path / "my data" / "train").mkdir(parents=True)
    weights = tmp_path / "last_epoch=001-step=10.ckpt"
    weights.touch()
    overrides = [*ETRAM, f"dataset.path={tmp_path}/my dat", f"weights={tmp_path}/last_epoch=001-step=1.ckpt"]
    said = said_about([*overrides, "hardware.gpus=[0,1]"], on_this_machine=True)
    assert f"{tmp_path} holds my data" in said["dataset.path"]
    assert f"{tmp_path} holds {weights.name}" in said["weights"]
    assert "names GPU 1" in said["hardware.gpus"]
    good = [*ETRAM, f"dataset.path={tmp_path}/my data", f"weights={weights}", "hardware.gpus=[0]"]
    assert load("train", good, on_this_machine=True).sections["weights"] == weights


def test_a_folder_without_splits_is_no_data_set(tmp_path: Path) -> None:
    said = said_about([*ETRAM, f"dataset.path={tmp_path}"], on_this_machine=True)
    assert "none of train, val, test" in said["dataset.path"]


def test_resume_by_run_id_is_no_path() -> None:
    said = said_about([*ETRAM, "resume=kkm8zcsi"], on_this_machine=True)
    assert list(said) == ["dataset.path"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.max_steps", "1e30"),
        ("training.max_steps", 10**30),
        ("hardware.num_workers.train", 10**6),
        ("model.backbone.embed_dim", 10**9),
        ("batch_size.eval", 10**9),
        ("dataset.sequence_length", 10**9),
        ("training.learning_rate", "nan"),
    ],
)
def test_numbers_beyond_reason_are_refused(key: str, value: object) -> None:
    said = said_about([*ETRAM, f"{key}={value}"])
    assert re.search("less than or equal|whole number$|finite", said[key])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.class_map.bus=coach", "the stored class 'bus' is"),
        ("dataset.classes=[vehicle,two-wheeler,pedestrian,dog]", "no stored class becomes dog"),
        ("dataset.stored_classes=[pedestrian,car]", "is no class of dataset.stored_classes"),
    ],
)
def test_a_class_map_leaves_no_class_out(override: str, message: str) -> None:
    said = said_about(["dataset=etram3", "model=maxvit_yolox/default", "dataset.path=DATA", override])
    assert any(key.startswith("dataset.class_map") and message in text for key, text in said.items())
