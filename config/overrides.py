"""Overrides as people type them, rewritten into what Hydra understands, or explained.

Hydra by itself reads `checkpoint=last_epoch=001.ckpt`, parentheses, commas and `~/` as grammar, refuses `+key` where
the key exists, and takes a mistyped group or `+key` for a new key without a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from config import aliases, names, retired
from config.errors import Problem
from config.quoting import quote, unquote
from config.schema.base import breaks_lines
from config.search_path import CHOSEN_BY_DEFAULT, SearchPath

COMMAND_LINE = "on the command line"
OVERRIDE = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=@\s]+)(?P<package>@[^=\s]*)?\s*(?:=(?P<value>.*))?", re.DOTALL)


SKELETON = "model=rnndet"


@dataclass(frozen=True)
class Override:
    """`sign` key `@package` = value, with the text as it was typed."""

    typed: str
    sign: str
    key: str
    package: str
    value: str | None

    @property
    def origin(self) -> str:
        return f"{COMMAND_LINE}: {self.typed}"


@dataclass
class Rewritten:
    """Overrides for Hydra, and everything there is to say about them."""

    of_hydra: list[str] = field(default_factory=list)  # of Hydra's own node: hydra.verbose=true
    choices: list[str] = field(default_factory=list)  # of groups: dataset=gen4
    values: list[str] = field(default_factory=list)  # of keys: ++batch_size.train=6
    plain: dict[str, str] = field(default_factory=dict)  # keys typed without a sign -> text; they must exist
    typed: dict[str, str] = field(default_factory=dict)  # key, not group -> text on the command line
    groups: set[str] = field(default_factory=set)  # chosen from, or probably meant
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def hydra(self) -> list[str]:
        return [*self.of_hydra, *self.choices, *self.values]

    @property
    def chooses_dataset(self) -> bool:
        """True for dataset=gen4, also mistyped."""
        return "dataset" in self.groups


def rewrite(overrides: Sequence[str], tree: names.KeyTree, search: SearchPath, *, sweep: bool = False) -> Rewritten:
    """Rewrite overrides for Hydra; `sweep` leaves comma lists of ordinary values to --multirun."""
    out = Rewritten()
    groups = search.groups()
    for typed in overrides:
        override = _split(typed, out)
        if override is None:
            continue
        key = override.key
        if is_of_hydra(key):
            out.of_hydra.append(typed)
        elif (key in groups and key not in tree.leaves) or "/" in key or _is_mistyped_group(key, groups, tree):
            _rewrite_choice(override, groups, search, out, sweep=sweep)
        else:
            out.typed[key] = typed
            _rewrite_value(override, tree, out, sweep=sweep)
    # The roots choose it themselves; typed, it would go before the network that an experiment chooses.
    out.choices = [choice for choice in out.choices if choice != SKELETON]
    return out


def is_of_hydra(key: str) -> bool:
    return key.startswith(("hydra.", "hydra/"))


def _split(typed: str, out: Rewritten) -> Override | None:
    if found := breaks_lines(typed.strip()):
        message = f"has the character {found} in it: a command is one line of text"
        out.problems.append(Problem(ascii(typed), message, COMMAND_LINE))
        return None
    match = OVERRIDE.fullmatch(typed.strip())
    if match is None or (match["value"] is None and match["sign"] != "~"):
        if typed.strip():
            message = "is not key=value. Write no spaces around '=', and put quotes around a value with spaces"
        else:
            message = "an empty argument: in a command of several lines nothing may follow the \\ at a line's end"
        out.problems.append(Problem(repr(typed), message, COMMAND_LINE))
        return None
    if match["value"] is not None and not match["value"].strip():
        message = "nothing stands after '='. Is a shell variable empty? null unsets a key that may be unset"
        out.problems.append(Problem(match["key"], message, COMMAND_LINE))
        return None
    return Override(typed, match["sign"] or "", match["key"], match["package"] or "", match["value"])


def _is_mistyped_group(key: str, groups: Sequence[str], tree: names.KeyTree) -> bool:
    is_key = tree.knows(key) or aliases.is_alias(key)
    return "." not in key and not is_key and names.nearest(key, groups) is not None


def _rewrite_choice(
    override: Override, groups: Sequence[str], search: SearchPath, out: Rewritten, *, sweep: bool
) -> None:
    group, origin = override.key, override.origin
    if group not in groups:
        near = names.nearest(group, groups)
        out.groups.add(near or group)
        message = "there is no such group" + (f"; did you mean {near}?" if near else "")
        message += "\n" + (search.listing(near) if near else f"groups: {', '.join(groups)}")
        out.problems.append(Problem(group, message, origin))
        return
    out.groups.add(group)
    if override.sign == "~":
        out.choices.append(override.typed)
        return
    value = unquote(override.value or "")
    is_list = value.startswith("[")
    texts = value.strip("[]").split(",") if is_list or (sweep and "," in value) else [value]
    options = [unquote(option).removesuffix(".yaml") for option in texts]  # with it no file would be found again
    known = search.choices(group)
    for option in options:
        if option not in known:
            near = names.nearest(option, known)
            message = f"{option!r} is not a choice" + (f"; did you mean {near}?" if near else "")
            out.problems.append(Problem(group, f"{message}\n{search.listing(group)}", origin))
            return
    if group in CHOSEN_BY_DEFAULT or override.package:
        sign = "" if group in CHOSEN_BY_DEFAULT else override.sign
    elif override.sign:
        sign = "+"
    else:
        message = f"is added with a plus: +{group}={value}"
        out.problems.append(Problem(group, message, origin))
        return
    chosen = f"[{','.join(options)}]" if is_list else ",".join(options)
    out.choices.append(f"{sign}{group}{override.package}={chosen}")


def _rewrite_value(override: Override, tree: names.KeyTree, out: Rewritten, *, sweep: bool) -> None:
    key, value, origin = override.key, override.value, override.origin
    if retired.retired_key(key):
        verdict = retired.judge(key, unquote(value or "null"), origin)
        if isinstance(verdict, Problem):
            out.problems.append(verdict)
        elif verdict is not None:
            out.warnings.append(verdict)
        return
    kind = names.outside_stage(key)
    if not tree.knows(kind):
        out.problems.append(Problem(key, names.unknown_key_message(kind, tree), origin))
        return
    if override.sign == "~":
        out.values.append(override.typed)
        return
    assert value is not None, "the grammar of overrides: only a deletion has no value"
    is_value = kind in tree.leaves or (kind in tree.optional and value.strip() == "null")
    if kind in tree.sections and not is_value and not value.lstrip().startswith("{"):
        message = f"is a section; set its keys: {', '.join(names.join(key, name) for name in tree.sections[kind])}"
        if key == "checkpoint":
            message += "\nresume=PATH goes on with a checkpoint's run, weights=PATH starts a new run from its weights"
        out.problems.append(Problem(key, message, origin))
        return
    text = _text_value(value, tree.is_path(kind), sweep) if tree.is_text(kind) else value
    rewritten = f"++{key}={text}"
    problem = _unreadable(rewritten, override, sweep)
    if problem:
        out.problems.append(problem)
        return
    out.values.append(rewritten)
    if not override.sign:
        out.plain[key] = override.typed


def _text_value(value: str, is_path: bool, sweep: bool) -> str:
    """Text is never grammar, except null, and in a sweep choice(...) and, unless it is a path, a comma list."""
    if value.strip() == "null" or (sweep and (value.startswith("choice(") or ("," in value and not is_path))):
        return value
    return quote(unquote(value))


def _unreadable(rewritten: str, override: Override, sweep: bool) -> Problem | None:
    try:
        parsed = OverridesParser.create().parse_override(rewritten)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        message = f"{override.value} cannot be read ({reason}); put quotes around text: {override.key}=\"'...'\""
        return Problem(override.key, message, override.origin)
    if parsed.is_sweep_override() and not sweep:
        message = f"has several values. A list is written [{override.value}]; --multirun makes one run for each value"
        return Problem(override.key, message, override.origin)
    return None
