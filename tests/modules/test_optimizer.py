import numpy as np
import pytest
import torch
from torch import nn

from config.loading import load_train_config
from models.weights.published_names import rename
from modules.optimizer import apply_settings, build_optimizer, rate_at, set_rate
from tests.network import golden, golden_detector, largest_difference, training_boxes, training_features

TABLES = {  # learning rate, total steps, pct_start, div_factor, final_div_factor
    "lr_table_rvt_gen4_short": (0.000346, 400, 0.005, 20, 10000),
    "lr_table_a": (0.001, 37, 0.25, 25, 100),
    "lr_table_b": (0.0002, 1000, 0.005, 20, 10000),
    "opt_noclip_lr": (0.000346, 10, 0.3, 20, 10000),
}


def training_config(table, *overrides):
    rate, total_steps, pct_start, div_factor, final_div_factor = TABLES[table]
    schedule = {
        "total_steps": total_steps,
        "pct_start": pct_start,
        "div_factor": div_factor,
        "final_div_factor": final_div_factor,
    }
    settings = [f"training.lr_scheduler.{key}={value}" for key, value in schedule.items()]
    settings += [f"training.learning_rate={rate}", f"training.max_steps={total_steps}", *overrides]
    return load_train_config(["dataset=toy", "model=maxvit_yolox/plain_lstm", *settings]).training


def pytorch_rates(config, num_steps):
    """What PyTorch's own OneCycleLR makes of the same settings; its final_div_factor divides the initial rate."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = config.lr_scheduler
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.learning_rate,
        total_steps=schedule.total_steps,
        pct_start=schedule.pct_start,
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=schedule.div_factor,
        final_div_factor=schedule.final_div_factor / schedule.div_factor,
    )
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < schedule.total_steps:
            scheduler.step()
    return rates


@pytest.mark.parametrize("table", ["lr_table_rvt_gen4_short", "lr_table_a", "lr_table_b"])
def test_learning_rates_of_the_reference(table):
    config = training_config(table)
    expected = golden("model_train")[table]
    rates = [rate_at(step, config) for step in range(len(expected))]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    assert rates == pytorch_rates(config, len(expected))  # to the last digit
    assert rate_at(10**9, config) == pytest.approx(config.learning_rate / config.lr_scheduler.final_div_factor)


def test_a_warm_up_of_exactly_one_step():
    config = load_train_config(["dataset=toy", "model=maxvit_yolox/plain_lstm", "training.max_steps=200"]).training
    assert config.lr_scheduler.pct_start * config.lr_scheduler.total_steps == 1
    with pytest.raises(ZeroDivisionError):
        pytorch_rates(config, 1)
    rates = [rate_at(step, config) for step in range(3)]
    assert rates[0] == pytest.approx(config.learning_rate / config.lr_scheduler.div_factor)
    assert rates[1] == pytest.approx(config.learning_rate, rel=0.01)
    assert rates[2] < rates[1]


def test_rate_is_constant_without_a_schedule():
    config = training_config("lr_table_a", "training.lr_scheduler.use=false")
    assert [rate_at(step, config) for step in (0, 10, 10**9)] == [0.001] * 3


def test_a_resumed_optimizer_takes_its_settings_from_the_config_and_keeps_its_moments():
    parameter = nn.Parameter(torch.ones(3))
    trained = build_optimizer([parameter], training_config("lr_table_a"))
    parameter.grad = torch.ones(3)
    trained.step()
    resumed = build_optimizer([parameter], training_config("lr_table_a"))
    resumed.load_state_dict(trained.state_dict())
    apply_settings(resumed, training_config("lr_table_a", "training.weight_decay=0.05"))
    assert resumed.param_groups[0]["weight_decay"] == 0.05
    assert resumed.param_groups[0]["params"][0] is parameter
    assert torch.equal(resumed.state[parameter]["exp_avg"], trained.state[parameter]["exp_avg"])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("run", "clip"), [("opt_noclip", None), ("opt_clipvalue1", 1.0)])
def test_three_training_steps_of_the_reference(run, clip, fused):
    """Tolerances grow with the steps: Adam divides by the gradient's size, and so amplifies rounding."""
    expected = golden("model_train")
    detector = golden_detector().train()
    config = training_config("opt_noclip_lr")
    optimizer = build_optimizer(detector.parameters(), config, fused=fused)
    for step, (loss_tolerance, norm_tolerance) in enumerate(((1e-5, 1e-5), (5e-5, 1e-4), (2e-4, 1e-3))):
        set_rate(optimizer, rate_at(step, config))
        assert rate_at(step, config) == pytest.approx(expected[f"{run}_lr"][step], rel=1e-9)
        losses = detector.loss(training_features(detector), *training_boxes())
        for name, value in zip(expected["loss_names"], expected[f"{run}_losses"][step], strict=True):
            assert losses[name].item() == pytest.approx(value, rel=loss_tolerance, abs=0)
        optimizer.zero_grad()
        losses["loss"].backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in detector.parameters()])
        assert norm.item() == pytest.approx(expected[f"{run}_total_gradnorm"][step], rel=norm_tolerance)
        if clip is not None:
            torch.nn.utils.clip_grad_value_(detector.parameters(), clip)
        optimizer.step()
    trained = dict(detector.named_parameters())
    prefix = f"{run}_param__"
    for key in (key for key in expected if key.startswith(prefix)):
        assert largest_difference(trained[rename(key.removeprefix(prefix))], expected[key]) < 2e-6
