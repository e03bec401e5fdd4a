"""What other trainers call our keys: Lightning, YOLOX and its kin, Hugging Face, RVT's command lines.

Spelling does not tell what a name means: `accumulate_grad_batches` looks like `limit_train_batches`. Names with a known
meaning are looked up here before anything is guessed.
"""

from __future__ import annotations

import difflib
from collections.abc import Container

# our key: names for it in any section
_NAMES = {
    "training.learning_rate": "lr base_lr max_lr lr0 init_lr initial_lr basic_lr_per_img learningrate",
    "training.weight_decay": "wd decay weight_decay_rate",
    "training.max_epochs": "epoch epochs num_epochs n_epochs max_epoch total_epochs num_train_epochs",
    "training.max_steps": "steps num_steps n_steps total_steps max_iter max_iters iterations num_iterations "
    "total_iters",
    "training.accumulate_grad_batches": "accumulate accumulation accum accum_iter accumulation_steps grad_accum "
    "gradient_accumulation gradient_accumulation_steps grad_accumulation_steps accumulate_batches",
    "training.gradient_clip_val": "clip grad_clip clip_grad gradient_clip gradient_clipping clip_value grad_clip_val",
    "training.ema_decay": "ema use_ema model_ema ema_rate ema_momentum weight_averaging",
    "training.freeze": "frozen frozen_stages freeze_backbone freeze_layers freeze_encoder freeze_at",
    "training.early_stopping.patience": "early_stop earlystopping patience early_stopping_patience",
    "training.profiler": "profile profiling",
    "training.activation_checkpointing": "gradient_checkpointing grad_checkpointing use_checkpoint checkpointing",
    "training.lr_scheduler.pct_start": "warmup warm_up warmup_steps warmup_epochs warmup_ratio",
    "training.lr_scheduler.use": "scheduler lr_schedule use_scheduler",
    "reproduce.seed_everything": "seed random_seed manual_seed",
    "reproduce.deterministic_flag": "deterministic use_deterministic_algorithms",
    "reproduce.benchmark": "cudnn_benchmark",
    "batch_size.train": "batch_size batchsize bs train_batch_size batch_size_per_gpu per_device_train_batch_size",
    "batch_size.eval": "eval_batch_size val_batch_size test_batch_size per_device_eval_batch_size",
    "hardware.gpus": "gpu gpus num_gpus n_gpus ngpu devices device accelerator cuda",
    "hardware.num_workers.train": "workers num_workers n_workers data_num_workers dataloader_num_workers",
    "validation.val_check_interval": "val_interval eval_interval eval_every eval_freq val_freq val_every eval_steps",
    "checkpoint.keep_best": "save_top_k keep_top_k",
    "checkpoint.every_n_steps": "every_n_train_steps save_interval save_every save_steps ckpt_interval",
    "checkpoint.every_n_minutes": "train_time_interval",
    "logging.train.log_every_n_steps": "log_interval print_interval log_freq print_freq logging_steps log_every",
    "run_root": "output_dir save_dir default_root_dir log_dir work_dir exp_dir output_folder",
    "use_test_set": "test_only test_set use_test",
    "model.postprocess.confidence_threshold": "conf conf_thres conf_thresh conf_threshold confthre test_conf "
    "score_threshold score_thr",
    "model.postprocess.nms_threshold": "nms iou nms_thres nms_thr nms_iou nmsthre iou_thres iou_threshold",
    "model.loss.size_weight.kind": "size_aware_loss size_aware weight_type",
    "model.loss.size_weight.weight": "size_aware_weight",
    "model.loss.size_weight.small_area": "small_threshold",
    "model.loss.size_weight.medium_area": "medium_threshold",
    "model.backbone.stage.attention.drop_path": "drop_path drop_path_rate stochastic_depth",
    "dataset.resolution_hw": "img_size imgsz image_size input_size resolution",
    "dataset.path": "data_dir data_path data_root dataset_dir dataset_path dataset_root",
    "dataset.sequence_length": "seq_len seq_length sequence_len num_frames",
    "dataset.classes": "nc class_names",
    "wandb.project_name": "project wandb_project exp_name",
    "experiment.name": "experiment_name",
    "wandb.group_name": "group wandb_group run_group",
}
_NO_NORM = (
    "gradients are clipped by value, as in RVT: training.gradient_clip_val, 0 for not at all. There is no other way"
)
_TRY_RATES = "--multirun training.learning_rate=1e-4,2e-4 trains one run for each; nothing looks for one by itself"
_ADAMW = "the optimizer is AdamW: training.learning_rate, training.weight_decay"
_ONE_MACHINE = "hardware.gpus=N trains on N GPUs of this machine with DDP; torchrun and srun start several machines"
_WANDB = "WandB's own variables are read: WANDB_MODE, WANDB_ENTITY, WANDB_TAGS, WANDB_DIR"
# what to do about names that have no key here
_ADVICE = {
    _NO_NORM: "max_grad_norm clip_grad_norm grad_norm clip_norm gradient_clip_norm gradient_clip_algorithm",
    _TRY_RATES: "lr_find auto_lr_find lr_finder find_lr lr_sweep sweep tune auto_lr",
    _ADAMW: "optimizer optim optimiser betas optimizer_name",
    _ONE_MACHINE: "strategy num_nodes nodes ddp distributed dist_strategy sync_batchnorm",
    _WANDB: "wandb_mode wandb_entity wandb_tags entity tags offline use_wandb",
    "training.precision=16-mixed or bf16-mixed": "amp use_amp fp16 bf16 half mixed_precision",
    "check=true times a few steps and shows the memory that they take": "fast_dev_run dry_run auto_scale_batch_size",
    "there is no minimum: training.max_steps and training.early_stopping end a run": "min_steps min_epochs",
    "the last state is always kept": "save_last save_weights_only",
    "the best checkpoints are those of the highest val/AP; see training.early_stopping.metric": "monitor",
    "a signal ends a run, which saves first: timeout -s TERM 8h python train.py ...": "max_time max_hours time_limit",
    "training.limit_train_batches and validation.limit_val_batches take a part of each epoch": "overfit_batches",
    "experiment.hypothesis='...' and +notes.ANYTHING='...' are kept with the run": "description target_metrics "
    "success_criteria",
    "compile.enable is a key of model.backbone, model.fpn and model.head": "torch_compile",
}
_RESUME = "ckpt ckpt_path ckpt_file resume_from resume_from_checkpoint load_from resume_path"
_WEIGHTS = "pretrained pretrained_weights pretrained_path init_from finetune init_weights weight_path"
_SECTIONS = {"trainer": "Lightning's Trainer has its settings in training, validation, hardware and logging"}

_KEY_OF = {name: key for key, names in _NAMES.items() for name in names.split()}
_ADVICE_ON = {name: advice for advice, names in _ADVICE.items() for name in names.split()}
_VALUES = {
    "training.precision": {
        "16-mixed": "fp16 float16 half amp mixed 16-true f16",
        "bf16-mixed": "bfloat16 bf16-true bf16_mixed bfloat",
        "32": "fp32 float32 float full single 32_true 64 64-true double",
    },
    "hardware.gpus": {"0": "cpu none", "auto": "cuda gpu all -1"},
    "logger": {"csv": "none null false off", "tensorboard": "tb tboard"},
}
_VALUE_OF = {
    key: {name: value for value, names in values.items() for name in names.split()} for key, values in _VALUES.items()
}


def is_alias(key: str) -> bool:
    name = _last(key)
    return name in _KEY_OF or name in _ADVICE_ON or name in _SECTIONS or name in f"{_RESUME} {_WEIGHTS}".split()


def advice_on(key: str, known: Container[str]) -> str | None:
    """What to write for another trainer's name, as the end of a sentence; None if its meaning is not known here.

    Inside of `dataset` and `model` only names of keys of that section are looked up, and of a model's weights: others
    mean something else there.
    """
    name, section = _last(key), key.split(".")[0]
    inside = section if section in ("dataset", "model") and "." in key else None
    meant = _KEY_OF.get(name)
    if meant is not None and meant in known and (inside is None or meant.startswith(f"{inside}.")):
        return f"did you mean {meant}?"
    if inside == "dataset" or (inside is not None and name not in _WEIGHTS.split()):
        return None
    if name in _RESUME.split() or name in _WEIGHTS.split():
        if "resume" not in known:
            return "did you mean checkpoint?"
        if name in _WEIGHTS.split():
            return "did you mean weights?"
        return "resume=PATH goes on with a run, weights=PATH starts a new one from a checkpoint's weights"
    return _ADVICE_ON.get(name) or _SECTIONS.get(key)


def advice_on_likeness(key: str, known: Container[str]) -> str | None:
    """As `advice_on`, for a misspelt one of those names."""
    alike = difflib.get_close_matches(_last(key), _KEY_OF, n=1, cutoff=0.85)
    return advice_on(f"{key.rpartition('.')[0]}.{alike[0]}".lstrip("."), known) if alike else None


def value_meant(key: str, value: object) -> str | None:
    """Our value for another trainer's."""
    return _VALUE_OF.get(key, {}).get(str(value).lower())


def _last(key: str) -> str:
    return key.rpartition(".")[2].lower().replace("-", "_")
