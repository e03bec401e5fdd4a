from __future__ import annotations

import pytest

from config.errors import ConfigError
from config.loading import load_dataset_config
from config.secret_values import check_secrets, is_secret

ENVIRONMENT = {"WANDB_API_KEY": "0123456789abcdef", "DATA_TOKEN": "short", "HOME": "/home/me", "MONKEY": "bananas!!"}


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "apikey"])
def test_secrets_are_known_by_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["HOME", "MONKEY", "TOKENIZERS_PARALLELISM", "PWD", "KEYBOARD", "COMPASS"])
def test_other_variables_are_no_secrets(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:WANDB_API_KEY}",
        "a_${oc.env:HF_TOKEN,none}",
        "${oc.decode:${oc.env:MY_SECRET}}",
        "${env:HF_TOKEN,x}",
        "0123456789abcdef",
    ],
)
def test_a_secret_in_a_key_is_refused_by_name(value: str) -> None:
    (problem,) = check_secrets({"wandb": {"group_name": value, "list": ["x"]}}, ENVIRONMENT)
    assert problem.key == "wandb.group_name"
    assert "0123456789" not in str(problem)


def test_what_is_no_secret_passes() -> None:
    values = {"a": "${oc.env:HOME}/data", "b": ["short", "bananas!!", 1, None], "c": {"d": "/home/me/data"}}
    assert list(check_secrets(values, ENVIRONMENT)) == []


def test_a_name_that_is_put_together_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("PART", "API_KEY")
    with pytest.raises(ConfigError, match=r"(?s)dataset\.name.*holds the secret WANDB_API_KEY"):
        load_dataset_config(["dataset=toy", "dataset.name=${oc.env:WANDB_${oc.env:PART}}"])
