"""Classes of a user's own by import path, and what is said of those that cannot be used."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from config.errors import UserError
from config.schema import LossConfig
from models.cells.build import build_cell
from models.loss import build_loss
from models.parts import build_own, import_part
from tests.network import model_config

NUMBER = itertools.count()
INIT, SUPER = "def __init__(self, ", "super().__init__()"
HEAD = "import torch\nfrom pydantic import BaseModel\nfrom torch import nn\n"
CELL = (
    HEAD
    + """
class Leaky(nn.Module):
    class Options(BaseModel):
        leak: float = 0.5

    def __init__(self, dim, options):
        super().__init__()
        self.leak = options.leak

    def forward(self, x, state):
        mean = x.new_zeros(x.shape[1:]) if state is None else state[0]
        frames = []
        for frame in x:
            mean = self.leak * mean + frame
            frames.append(mean)
        return torch.stack(frames), (mean,)
"""
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module on Python's path; gives its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        name = f"own_parts_{next(NUMBER)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def cell_config(path: str, **options: object) -> object:
    overrides = [f"+model.backbone.stage.cell_options.{name}={value}" for name, value in options.items()]
    return model_config(f"model.backbone.stage.cell={path}", *overrides).backbone.stage


def refusal(path: str, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        build_cell(8, cell_config(path, **options))
    return str(caught.value)


def test_a_cell_of_ones_own_with_checked_options(module: Callable[[str], str]) -> None:
    name = module(CELL)
    before = torch.get_rng_state()
    cell = build_cell(8, cell_config(f"{name}:Leaky", leak=0.25))
    assert torch.equal(torch.get_rng_state(), before)  # looking at it draws nothing
    assert cell.training
    assert cell(torch.ones(2, 1, 3, 3, 8), None)[0][:, 0, 0, 0, 0].tolist() == [1.0, 1.25]
    assert "leak: Input should be a valid number" in refusal(f"{name}:Leaky", leak="fast")
    assert "leek: there is no such option. It has: leak" in refusal(f"{name}:Leaky", leek=1)


def test_options_without_a_schema_are_given_as_they_are(module: Callable[[str], str]) -> None:
    name = module(f"{HEAD}class Part(nn.Module):\n    {INIT}dim, options): {SUPER}; self.all = (dim, options)\n")
    assert build_own(f"{name}:Part", "key", {"a": [1, None]}, 8).all == (8, {"a": [1, None]})


def test_what_is_imported_is_told_once(module: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    name = module(CELL)
    for _ in range(2):
        import_part(f"{name}:Leaky", "model.loss.name")
    told = capsys.readouterr().err.splitlines()
    assert [line.startswith("model.loss.name: Leaky of /") for line in told] == [True]


def test_a_module_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "PYTHONPATH=FOLDER python ..., the folder that holds no_where.py" in refusal("no_where:A")
    (tmp_path / "beside_me.py").write_text("")
    assert f"no module beside_me on Python's path. PYTHONPATH={tmp_path} python" in refusal("beside_me:A")
    project = Path(__file__).parents[2]
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert f"tests lies in {project}, as runs and data sets of others may do" in refusal("tests.checking:A")
    assert "docs lies in" in refusal("docs.theirs:A")  # no package: Python would look there, too
    monkeypatch.setenv("PYTHONPATH", str(project))
    assert "no module tests.nowhere" in refusal("tests.nowhere:A")
    assert "a module of Python itself" in refusal("this:A")
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import missing_library\n", "No module named 'missing_library' (FILE:1). Install what it needs"),
        ("x = 1\n1 / 0\n", "importing NAME fails: ZeroDivisionError: division by zero (FILE:2)"),
        ("def f(:\n", "importing NAME fails: SyntaxError: invalid syntax"),
        ("raise SystemExit(3)\n", "importing NAME fails: SystemExit: 3 (FILE:1)"),
        ("class Celll:\n    pass\n", "FILE has no Cell; did you mean NAME:Celll?"),
        ("class Other:\n    pass\n", "FILE has no Cell (Other)"),
        ("Cell = 3\n", "is a int; wanted is a class that derives from torch.nn.Module"),
        ("class Cell:\n    pass\n", "is the class Cell; wanted is a class that derives from torch.nn.Module"),
        (f"{HEAD}class Cell(nn.Module):\n    {INIT}): {SUPER}\n", "Cell(int, options) fails: TypeError"),
        (
            f"{HEAD}class Cell(nn.Module): Options = dict\n",
            "its Options are the class dict; wanted is a pydantic model",
        ),
    ],
)
def test_a_part_that_cannot_be_had(text: str, said: str, module: Callable[[str], str], tmp_path: Path) -> None:
    name = module(text)
    said = said.replace("NAME", name).replace("FILE", str(tmp_path / f"{name}.py"))
    assert said in refusal(f"{name}:Cell")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return x", "gives a Tensor, not a pair of output and state"),
        ("return x[:1], ()", "its output is [1, 2, 4, 5, 8] for x [3, 2, 4, 5, 8]"),
        ("return x, [x[-1]]", "its state is no tuple of tensors"),
        ("return x, (x,)", "its first axis is the lane, 2 here"),
        ("return x - x.mean(), ()", "a lane's output depends on the other lanes of the batch"),
        ("return x + state[0], (x[-1],)", "TypeError: 'NoneType' object is not subscriptable (FILE:6)"),
        ("return torch.zeros(2, 2) @ x, ()", "RuntimeError"),
    ],
)
def test_a_cell_that_does_not_do_what_a_cell_does(
    body: str, said: str, module: Callable[[str], str], tmp_path: Path
) -> None:
    name = module(f"{HEAD}class Cell(nn.Module):\n    {INIT}*_): {SUPER}\n    def forward(self, x, state): {body}\n")
    told = refusal(f"{name}:Cell")
    assert "does not do what a cell does" in told
    assert said.replace("FILE", str(tmp_path / f"{name}.py")) in told
    assert "x [L, B, h, w, 8]" in told


@pytest.mark.parametrize(
    ("names", "body", "said"),
    [
        ("('loss',)", "return o.class_logits.sum()", "it gives tensor("),
        ("('loss', 'b')", "return {'loss': o.class_logits.sum()}", "it gives ['loss'], but names ('loss', 'b')"),
        ("['loss']", "return {}", "its names are ['loss'], not a tuple with 'loss' in it"),
        ("('loss',)", "return {'loss': o.class_logits.sum((0, 1))}", "loss is no tensor of one number"),
        ("('loss',)", "return {'loss': torch.zeros(())}", "loss has no gradient for 2 boxes"),
        ("('loss',)", "return {'loss': o.class_logits.sum() / len(boxes)}", "for 0 boxes in two images"),
        ("('loss',)", "return {'loss': (o.class_logits * 0).sum().sqrt()}", "its gradient is not finite for 2 boxes"),
        ("('loss',)", "return {'loss': boxes[0, 0] * o.class_logits.sum()}", "IndexError"),
    ],
)
def test_a_loss_that_does_not_do_what_a_loss_does(
    names: str, body: str, said: str, module: Callable[[str], str]
) -> None:
    call = f"    def __call__(self, o, boxes, image): {body}\n"
    name = module(f"{HEAD}class Loss:\n    names = {names}\n    {INIT}*_): pass\n{call}")
    with pytest.raises(UserError) as caught:
        build_loss(LossConfig(name=f"{name}:Loss"), 3)
    assert str(caught.value).startswith(f"model.loss.name={name}:Loss: does not do what a loss does: ")
    assert said in str(caught.value)


def test_a_loss_of_ones_own_knows_the_classes(module: Callable[[str], str]) -> None:
    body = "return {'loss': (o.class_logits * torch.ones(self.n)).sum()}"
    call = f"    def __call__(self, o, boxes, image): {body}\n"
    init = f"    {INIT}n, options): self.n, self.options = n, options\n"
    name = module(f"{HEAD}class Loss:\n    names = ('loss',)\n{init}{call}")
    loss = build_loss(LossConfig(name=f"{name}:Loss", options={"a": 1}), 5)
    assert (loss.n, loss.options) == (5, {"a": 1})
