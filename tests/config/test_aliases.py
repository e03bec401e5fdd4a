from __future__ import annotations

import pytest

from config.aliases import _ADVICE_ON, _KEY_OF
from config.errors import ConfigError
from config.loading import load
from config.names import key_tree, unknown_key_message
from config.schema import TrainConfig, ValidationConfig

TRAIN, VALIDATION = key_tree(TrainConfig), key_tree(ValidationConfig)


def test_every_name_leads_to_a_key_and_is_none_itself() -> None:
    keys = TRAIN.leaves.keys() | VALIDATION.leaves.keys()
    assert set(_KEY_OF.values()) <= keys
    assert not {name for name in (*_KEY_OF, *_ADVICE_ON) if name in keys}
    assert not _KEY_OF.keys() & _ADVICE_ON.keys()


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("training.lr", "did you mean training.learning_rate?"),
        ("lr", "did you mean training.learning_rate?"),
        ("trainer.accumulate_grad_batches", "did you mean training.accumulate_grad_batches?"),
        ("accumulate_grad_batches", "did you mean training.accumulate_grad_batches?"),
        ("training.gradient_accumulation_steps", "did you mean training.accumulate_grad_batches?"),
        ("trainer.max_epochs", "did you mean training.max_epochs?"),
        ("epochs", "did you mean training.max_epochs?"),
        ("training.batch_size", "did you mean batch_size.train?"),
        ("training.deterministic", "did you mean reproduce.deterministic_flag?"),
        ("trainer.devices", "did you mean hardware.gpus?"),
        ("trainer.precision", "did you mean training.precision?"),
        ("training.early_stop", "did you mean training.early_stopping.patience?"),
        ("ckpt_path", "resume=PATH goes on with a run, weights=PATH"),
        ("pretrained", "did you mean weights?"),
        ("model.backbone.pretrained", "did you mean weights?"),
        ("auto_lr_find", "--multirun training.learning_rate=1e-4,2e-4"),
        ("training.gradient_clip_algorithm", "by value, as in RVT"),
        ("trainer.fast_dev_run", "check=true"),
        ("experiment_name", "did you mean experiment.name?"),
        ("description", "+notes.ANYTHING='...'"),
        ("trainer", "Lightning's Trainer"),
        ("dataset.seq_len", "did you mean dataset.sequence_length?"),
        ("traning.max_step", "did you mean training.max_steps?"),
    ],
)
def test_names_of_other_trainers_are_understood(key: str, suggestion: str) -> None:
    assert suggestion in unknown_key_message(key, TRAIN).splitlines()[0]


@pytest.mark.parametrize(
    "key", ["training.batches", "training.nesterov", "dataset.optimizer", "model.head.epochs", "foo"]
)
def test_no_suggestion_is_better_than_a_wrong_one(key: str) -> None:
    assert unknown_key_message(key, TRAIN).splitlines()[0] == "there is no such key"


def test_validation_has_its_own_names() -> None:
    assert "did you mean checkpoint?" in unknown_key_message("ckpt", VALIDATION)
    assert "did you mean use_test_set?" in unknown_key_message("test_only", VALIDATION)


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("training.precision=fp16", "did you mean 16-mixed?"),
        ("training.precision=bfloat16", "did you mean bf16-mixed?"),
        ("training.precision=64", "did you mean 32?"),
        ("hardware.gpus=cpu", "did you mean 0?"),
        ("logger=null", "did you mean csv?"),
        ("epochs=5", "did you mean training.max_epochs?"),
    ],
)
def test_values_of_other_trainers_are_understood(override: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=suggestion.replace("?", r"\?")):
        load("train", ["dataset=gen4", "dataset.path=.", "model=maxvit_yolox/default", override])
