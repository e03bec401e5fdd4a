import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from config.errors import UserError
from models.detector import Detector
from models.weights.description import describe
from models.weights.pretrained import Wanted, check_compatible, load_into, load_weights
from models.weights.published_names import rename
from tests.network import (
    NUM_CLASSES,
    PARTITION_SIZE,
    golden,
    golden_detector,
    golden_weights,
    model_config,
    their_weights,
)

RVT_CONFIG = {"model": {"name": "rnndet", "sizes": [1, 2.5, True, None]}, "dataset": {"path": "???"}}


class Exploit:
    """What a hostile checkpoint holds: unpickling it calls a function."""

    called = False

    def __reduce__(self):
        return (_called, ())


def _called():
    Exploit.called = True
    return {}


def rvt_checkpoint(weights, hyper_parameters=None):
    return {
        "epoch": 3,
        "global_step": 100,
        "state_dict": {f"mdl.{key}": value for key, value in weights.items()},
        "hyper_parameters": OmegaConf.create(RVT_CONFIG) if hyper_parameters is None else hyper_parameters,
        "callbacks": {"ModelCheckpoint{'monitor': 'val/AP'}": {"best_model_score": torch.tensor(0.3)}},
    }


def plain_lstm_fork(weights):
    """Two convolutions, gates input, forget, output, cell."""
    forked = {}
    for key, value in weights.items():
        lstm, _, name = key.rpartition("conv1x1.")
        if not lstm.endswith(".lstm."):
            forked[key] = value
            continue
        forget, input_, output, cell = value.chunk(4)
        value = torch.cat((input_, forget, output, cell))
        if name == "bias":
            forked[f"{lstm}input_transform.bias"] = value
        else:
            forked[f"{lstm}input_transform.weight"], forked[f"{lstm}hidden_transform.weight"] = value.chunk(2, dim=1)
    return forked


CHECKPOINTS = {
    "RVT, Lightning": lambda: rvt_checkpoint(their_weights()),
    "RVT, nested container": lambda: rvt_checkpoint(their_weights(), {"config": OmegaConf.create(RVT_CONFIG)}),
    "RVT, compiled": lambda: rvt_checkpoint(
        {key.replace("backbone.", "backbone._orig_mod."): value for key, value in their_weights().items()}
    ),
    "RVT, bare": their_weights,
    "fork with PlainLSTM2d": lambda: rvt_checkpoint(plain_lstm_fork(their_weights())),
    "fork, bare": lambda: plain_lstm_fork(their_weights()),
    "ours, Lightning": lambda: {"state_dict": {f"detector.{key}": value for key, value in golden_weights().items()}},
    "ours, bare": golden_weights,
    "ours, distributed": lambda: {f"module.{key}": value for key, value in golden_weights().items()},
}


@pytest.fixture
def save(tmp_path):
    def save_content(content):
        torch.save(content, tmp_path / "some.ckpt")
        return tmp_path / "some.ckpt"

    return save_content


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_of_every_kind_give_the_same_weights(kind, save):
    expected = golden_detector().state_dict()
    weights = load_weights(save(CHECKPOINTS[kind]()), expected)
    assert weights.keys() == expected.keys()
    for key, value in weights.items():
        assert torch.equal(value, expected[key]), key
    check_compatible(weights, expected, Path("some.ckpt"))


def test_published_names_and_shapes_are_those_of_our_base_size():
    config = model_config(
        "model.backbone.embed_dim=64", "model.backbone.stage.attention.dim_head=32", "model.fpn.depth=0.67"
    )
    with torch.device("meta"):
        own = Detector(config, 3, (6, 10))
    published = golden("published_keys")
    keys, shapes = published["gen4_base_keys"], published["gen4_base_shapes"]
    ours = {key: "x".join(map(str, value.shape)) for key, value in own.state_dict().items()}
    assert {rename(str(key)): str(shape) for key, shape in zip(keys, shapes, strict=True)} == ours
    parameters = {rename(str(key)) for key in keys[published["gen4_base_is_param"]]}
    assert parameters == {name for name, _ in own.named_parameters()}


def test_shapes_tell_the_size():
    told = describe(golden_weights())
    assert told["model.backbone.embed_dim"] == 16
    assert told["model.backbone.dim_multiplier"] == (1, 2, 4, 8)
    assert told["model.backbone.num_blocks"] == (1, 1, 1, 1)
    assert told["model.head.num_classes"] == 8
    assert told["model.fpn.depth"] == 0.33
    assert told["model.fpn.in_stages"] == (2, 3, 4)
    assert not told["model.backbone.stage.lstm.dws_conv"]


@pytest.mark.parametrize(
    ("config_setting", "advice"),
    [
        ("model.backbone.embed_dim=32", "model.backbone.embed_dim=16"),
        ("model.backbone.input_channels=10", "model.backbone.input_channels=20"),
        ("model.backbone.dim_multiplier=[1,2,4,4]", r"model.backbone.dim_multiplier=\[1,2,4,8\]"),
        ("model.backbone.num_blocks=[1,1,2,1]", r"model.backbone.num_blocks=\[1,1,1,1\]"),
        ("model.backbone.stage.downsample.overlap=false", "overlap=true"),
        ("model.backbone.stage.attention.mlp_ratio=2", "mlp_ratio=4"),
        ("model.backbone.stage.attention.mlp_gated=true", "mlp_gated=false"),
        ("model.backbone.stage.attention.attention_bias=false", "attention_bias=true"),
        ("model.backbone.stage.lstm.dws_conv=true", "dws_conv=false"),
        ("model.backbone.stage.cell=s5", r"needs model\.backbone\.stage\.cell=lstm\. It differs"),
        ("model.fpn.depth=0.67", "model.fpn.depth=0.33"),
        ("model.fpn.depthwise=true", r"fpn \(.* tensors fit.*Compare model"),
        ("model.backbone.stage.attention.ls_init_value=0", r"backbone\.stage 1 \(.* tensors fit"),
    ],
)
def test_disagreement_with_the_config_names_the_setting_to_change(config_setting, advice):
    detector = Detector(raw_config(config_setting), NUM_CLASSES, PARTITION_SIZE)
    with pytest.raises(UserError, match=rf"theirs\.ckpt .*{advice}"):
        check_compatible(golden_weights(), detector.state_dict(), Path("theirs.ckpt"))


def raw_config(setting):
    """Some settings only fit another data set; here the network alone matters."""
    if "input_channels" not in setting:
        return model_config(setting)
    config = model_config()
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"input_channels": 10})})


S5 = "model.backbone.stage.cell=s5"
CARRY = "model.backbone.stage.s5.carry_state"


def published_s5(detector):
    """The detector's weights as the published code for S5 saves them."""
    inside = {"ssm.eigenvalues": "s5.seq.Lambda", "ssm.input_matrix": "s5.seq.B", "ssm.output_matrix": "s5.seq.C"}
    inside |= {"ssm.skip": "s5.seq.D", "ssm.log_step": "s5.seq.log_step", "norm1": "attn_norm", "norm2": "ff_norm"}
    inside |= {"fc1": "ff_enc", "fc2": "ff_dec"}
    weights = {}
    for key, value in detector.state_dict().items():
        before, cell, name = key.partition(".s5.")
        for ours, theirs in inside.items():
            name = name.replace(ours, theirs) if cell else name
        weights[f"{before}.s5_block.{name}" if cell else key] = value
    return weights


@pytest.mark.parametrize(
    ("setting", "told"),
    [("true", "here the state goes on .*carry_state=false does as that"), ("false", "so it is here")],
)
def test_published_weights_of_s5_load_and_the_use_of_their_state_is_reported(setting, told, save):
    theirs, ours = Detector(model_config(S5), NUM_CLASSES, PARTITION_SIZE), model_config(S5, f"{CARRY}={setting}")
    path = save(rvt_checkpoint(published_s5(theirs)))
    detector = Detector(ours, NUM_CLASSES, PARTITION_SIZE)
    (line,) = load_into(detector, ours, path)
    assert re.search(rf"some\.ckpt comes from the published code .*{told}", line)
    for key, value in theirs.state_dict().items():
        assert torch.equal(detector.state_dict()[key], value), key
    assert load_into(detector, ours, save(rvt_checkpoint(theirs.state_dict()))) == []


def test_weights_of_s5_ask_for_its_cell_and_its_size(save):
    narrow = model_config(S5, "model.backbone.stage.s5.state_dim=24")
    weights = Detector(narrow, NUM_CLASSES, PARTITION_SIZE).state_dict()
    assert describe(weights)["model.backbone.stage.cell"] == "s5"
    assert describe(weights)["model.backbone.stage.s5.state_dim"] == 24
    with pytest.raises(UserError, match=r"needs model\.backbone\.stage\.cell=s5\."):
        load_into(golden_detector(), model_config(), save(weights))
    with pytest.raises(UserError, match=r"needs model\.backbone\.stage\.s5\.state_dim=24\."):
        load_into(Detector(model_config(S5), NUM_CLASSES, PARTITION_SIZE), model_config(S5), save(weights))


def test_settings_that_tell_in_no_shape_are_reported_where_ours_was_trained_with_others(save):
    trained = model_config(S5, f"{CARRY}=false", "model.backbone.stage.s5.bandlimit=0.4")
    detector = Detector(trained, NUM_CLASSES, PARTITION_SIZE)
    content = {"state_dict": detector.state_dict(), "config": {"model": trained.model_dump(mode="json")}}
    assert load_into(detector, trained, save(content)) == []
    (line,) = load_into(detector, model_config(S5), save(content))
    assert line.endswith(f"some.ckpt was trained with {CARRY}=false; here it is true")
    content["config"]["model"]["backbone"]["stage"].pop("s5")  # a file from before there were cells
    assert load_into(detector, model_config(S5), save(content)) == []


def test_weights_of_another_size_of_frames_fit_and_it_is_told(save):
    """No parameter's shape depends on it, whatever the cell."""
    for options in ((), (S5,)):
        trained = model_config(*options)
        wide, high = (Detector(trained, NUM_CLASSES, size) for size in (PARTITION_SIZE, (9, 15)))
        dataset = {"resolution_hw": [720, 1280], "downsample_by_factor_2": True}
        content = {"state_dict": wide.state_dict(), "config": {"dataset": dataset}}
        assert load_into(high, trained, save(content), Wanted(frame_hw=(360, 640))) == []
        (line,) = load_into(high, trained, save(content), Wanted(frame_hw=(540, 960)))
        assert "some.ckpt was trained with frames of 360 x 640; here they are 540 x 960. " in line


def test_other_class_count_asks_for_another_data_set():
    detector = Detector(model_config(), 3, PARTITION_SIZE)
    with pytest.raises(UserError, match=r"for 8 classes, and here there are 3\. It needs a dataset with 8"):
        check_compatible(golden_weights(), detector.state_dict(), Path("theirs.ckpt"))


def test_hostile_file_is_refused_unread_and_the_way_out_named(save):
    path = save(rvt_checkpoint(their_weights(), {"config": Exploit()}))
    with pytest.raises(UserError, match=r"some\.ckpt .*trust_checkpoint=true"):
        load_weights(path, golden_weights())
    assert not Exploit.called
    assert load_weights(path, golden_weights(), trust=True).keys() == golden_weights().keys()
    assert Exploit.called


def damaged_files():
    whole = pickle.dumps({"a": list(range(1000))})
    return {
        "empty": b"",
        "text": b"wandb: run finished\n" * 10,
        "pickle cut short": whole[:500],
        "plain pickle": whole,
        "image": bytes([0x89, 0x50, 0x4E, 0x47]) + bytes(200),
        "zip cut short": b"PK\x03\x04" + bytes(400),
    }


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("kind", damaged_files())
def test_file_that_is_no_checkpoint_gives_one_line_with_its_path(kind, trust, tmp_path):
    path = tmp_path / "broken.ckpt"
    path.write_bytes(damaged_files()[kind])
    with pytest.raises(UserError, match=r"broken\.ckpt") as error:
        load_weights(path, golden_weights(), trust)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_checkpoint_gives_one_line_with_its_path(share, save):
    path = save(golden_weights())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"some\.ckpt") as error:
        load_weights(path, golden_weights())
    assert "\n" not in str(error.value)


def test_missing_file_and_foreign_weights_are_told_apart(tmp_path, save):
    with pytest.raises(UserError, match=r"nowhere\.ckpt: no such checkpoint file"):
        load_weights(tmp_path / "nowhere.ckpt", golden_weights())
    with pytest.raises(UserError, match=r"no weights of an RVT detector \(found: state_dict\.conv1\.weight\)"):
        load_weights(save({"state_dict": {"conv1.weight": torch.zeros(3)}}), golden_weights())


@pytest.fixture(scope="module")
def three_classes():
    return Detector(model_config(), 3, PARTITION_SIZE)


def state_before(detector):
    return {key: value.clone() for key, value in detector.state_dict().items()}


def test_new_classes_keep_all_but_the_class_predictors(save, three_classes):
    before, theirs = state_before(three_classes), golden_weights()
    path = save(rvt_checkpoint(their_weights()))
    with pytest.raises(UserError, match=r"for 8 classes, and here there are 3\. weights_classes=new keeps"):
        load_into(three_classes, model_config(), path, Wanted(offered=True))
    wanted = Wanted(classes=("car", "bus", "dog"), new_classes=True, offered=True)
    deeper = model_config("model.fpn.depth=1")
    with pytest.raises(
        UserError, match=r"needs model\.fpn\.depth=0\.33\. It differs in fpn.*weights_partial=true takes"
    ):
        load_into(Detector(deeper, 3, PARTITION_SIZE), deeper, path, wanted)
    with pytest.raises(UserError, match=r"freeze=head: .* head\.class_predictors\.0\.weight first, .* drawn at random"):
        load_into(three_classes, model_config(), path, replace(wanted, frozen=("head",)))
    (line,) = load_into(three_classes, model_config(), path, replace(wanted, frozen=("backbone", "fpn")))
    assert line.endswith("those start anew for 3 classes, car, bus, dog (the file's had 8)")
    for key, value in three_classes.state_dict().items():
        new = key.startswith("head.class_predictors.")
        assert torch.equal(value, before[key] if new else theirs[key]), key


def test_a_backbone_alone_loads_on_request_and_the_table_tells_it(save, three_classes):
    backbone = {key.removeprefix("backbone."): value for key, value in their_weights().items() if "backbone." in key}
    before, path = state_before(three_classes), save({"model": backbone})
    with pytest.raises(UserError, match=r"fpn \(not in the file\), head \(not in the file\).*weights_partial=true"):
        load_into(three_classes, model_config(), path, Wanted(offered=True))
    lines = load_into(three_classes, model_config(), path, Wanted(partial=True, offered=True))
    table = {line[:17].strip(): [int(n) for n in line[17:].split()] for line in lines[2:]}
    assert list(table) == [*(f"backbone.stage {k}" for k in range(1, 5)), "fpn", "head"]
    assert table["backbone.stage 2"][0] > 0
    assert table["backbone.stage 2"][1:] == [0, 0]
    assert table["fpn"] == [0, 0, sum(key.startswith("fpn.") for key in before)]
    for key, value in three_classes.state_dict().items():
        expected = golden_weights()[key] if key.startswith("backbone.") else before[key]
        assert torch.equal(value, expected), key
    other = Detector(model_config("model.backbone.embed_dim=32"), 3, PARTITION_SIZE)
    odd = {key: value for key, value in golden_weights().items() if key.startswith("backbone.stages.0.downsample.conv")}
    with pytest.raises(UserError, match="nothing in it fits"):
        load_into(other, model_config(), save(odd), Wanted(partial=True, offered=True))


def test_levels_of_a_pyramid_with_another_number_of_scales_meet_by_their_stage(save):
    config = model_config("model.fpn.in_stages=[1,2,3,4]")
    detector = Detector(config, NUM_CLASSES, PARTITION_SIZE)
    before = state_before(detector)
    load_into(detector, config, save(golden_weights()), Wanted(partial=True, offered=True))
    name = "head.box_branches.{}.0.conv.weight"
    for level in range(3):
        assert torch.equal(detector.state_dict()[name.format(level + 1)], golden_weights()[name.format(level)])
    assert torch.equal(detector.state_dict()[name.format(0)], before[name.format(0)])


def test_other_names_for_as_many_classes_are_reported(save):
    content = {"state_dict": golden_weights(), "config": {"dataset": {"classes": ["a", "b"]}}}
    (line,) = load_into(golden_detector(), model_config(), save(content), Wanted(classes=("b", "a")))
    assert line.endswith("was trained for the classes a, b; here they are called b, a")
