"""Where the processes of one launch meet, and what they must agree on before they begin; what is wrong is told once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from config.errors import SharedError, UserError
from config.launch import read_launch
from modules.run.company import EXIT_CODE, Company, node

T = TypeVar("T")

_company: Company | None = None


def company() -> Company | None:
    """Those that a launcher has started together with this process; None if there are none."""
    return _company


def join(command: Sequence[str], agent: str = "", error: str | None = None) -> Company | None:
    """Meet the others, once. `error`: what this process has found wrong before it came here, which ends all."""
    global _company
    launch = read_launch()
    if not launch.has_launcher or launch.world_size == 1:
        return None
    if _company is None:
        _company = Company(launch)
        answer = {
            "node": node(),
            "node_rank": launch.node_rank,
            "command": list(command),
            "agent": agent,
            "error": error,
        }
        verdict = _company.ask(answer, judge_meeting)
        if "error" in verdict:
            _company.refuse(verdict["error"])
        _company.nodes, _company.node_names, _company.agents = (verdict[key] for key in ("nodes", "names", "agents"))
        _company.watch()
    return _company


def judge_meeting(answers: list[dict[str, Any]]) -> dict[str, Any]:
    nodes = [answer["node"] for answer in answers]
    if any(answer["error"] for answer in answers):
        return {"error": by_node([answer["error"] for answer in answers], nodes)}
    commands = [answer["command"] for answer in answers]
    for rank, command in enumerate(commands):
        if command != commands[0]:
            own = [
                " ".join(text for text in one if text not in other) or "(nothing)"
                for one, other in ((commands[0], command), (command, commands[0]))
            ]
            told = f"rank 0 was given {own[0]}, rank {rank} on {nodes[rank]} {own[1]}"
            return {
                "error": f"the processes of one run have different commands: {told}. To train apart, start each by "
                "itself (srun --ntasks=1 --exact ... &)"
            }
    names = {answer["node_rank"]: answer["node"] for answer in answers}
    agents = [*dict.fromkeys(answer["agent"] for answer in answers)]
    return {"nodes": nodes, "names": [names[rank] for rank in sorted(names)], "agents": agents}


def by_node(errors: Sequence[str | None], nodes: Sequence[str]) -> str:
    """One text of what was found wrong, each mistake once, with the nodes unless it is all of them."""
    where: dict[str, dict[str, None]] = {}
    for error, name in zip(errors, nodes, strict=True):
        if error:
            where.setdefault(error, {})[name] = None
    everywhere = set(nodes)
    texts = [text if set(found) == everywhere else f"on {', '.join(found)}: {text}" for text, found in where.items()]
    return "\n".join(texts)


def speak(error: UserError) -> NoReturn:
    """End with what is wrong: in one voice if it is found before the start or by all, else with its place."""
    launch = read_launch()
    if _company is None:
        try:
            join(sys.argv, error=str(error))
        except UserError as failure:  # nobody there to speak with
            print(f"{Path(sys.argv[0]).name}: {error}\n{failure}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_CODE) from None
    if not isinstance(error, SharedError) or launch.rank == 0:
        where = "" if isinstance(error, SharedError) else f"rank {launch.rank} on {node()}: "
        print(f"{Path(sys.argv[0]).name}: {where}{error}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CODE)


def together(do: Callable[[], T]) -> T:
    """Do something in every process, and go on only if it has worked in all; the first tells what failed, once."""
    if _company is None:
        return do()
    error, value = None, None
    try:
        value = do()
    except UserError as failure:
        error = str(failure)
    except OSError as failure:
        error = ": ".join(map(str, filter(None, (failure.filename, failure.strerror or failure))))
    _refuse_if(error, by_node)
    return value  # type: ignore[bad-return]  # what `do` gave


def refuse_shared(gpu: str) -> None:
    """End all where two processes would use one GPU, known by its unique number."""

    def judge(gpus: Sequence[str], nodes: Sequence[str]) -> str:
        for rank, each in enumerate(gpus):
            if gpus.index(each) != rank:
                return f"rank {gpus.index(each)} and {rank} on {nodes[rank]} see the same GPU {each}: give each its own"
        return ""

    _refuse_if(gpu, judge)


def refuse_other_data(split: Path, digest: str) -> None:
    """End all where copies on the disks of nodes differ in what is trained on, not only in times of files."""

    def judge(digests: Sequence[str], nodes: Sequence[str]) -> str:
        for each, name in zip(digests, nodes, strict=True):
            if each != digests[0]:
                differ = f"{digests[0]} on {nodes[0]}, {each} on {name}"
                return f"{split}: the nodes hold different data ({differ}). Copy one to the other"
        return ""

    _refuse_if(digest, judge)


def _refuse_if(mine: Any, judge: Callable[[Sequence[Any], Sequence[str]], str]) -> None:
    """End all with what the first process makes of all answers and the names of their nodes, unless that is nothing."""
    if _company is not None:
        nodes = _company.nodes
        told = _company.ask(mine, lambda answers: judge(answers, nodes))
        if told:
            _company.refuse(told)
