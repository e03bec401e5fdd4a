"""Whether the times of events and boxes can be of one clock."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int64
from numpy import ndarray

from config.schema import PreprocessingConfig
from data.recordings.formats.common import TimeUnit
from data.recordings.recording import TAIL_US, Recording

FEW, MOST = 0.1, 0.9  # shares of label times
_SHRUNK = 200  # labels whose span is so many times shorter than the events' may be in another unit


@dataclass(frozen=True)
class Said:
    """What is taken for true of the times: settings, or a guess at settings."""

    time_unit: TimeUnit
    label_unit: TimeUnit
    label_clock: str | None


@dataclass(frozen=True)
class EventSpan:
    """Span of the events on the file's own clock, and where boxes count from unless they have its stamps."""

    first_us: int
    last_us: int
    start_us: int
    has_own_start: bool  # `Recording.has_own_start`

    @classmethod
    def of(cls, recording: Recording) -> EventSpan:
        assert recording.first_t_us is not None
        has_own_start = recording.has_own_start
        start_us = recording.clock_start_us if has_own_start else recording.first_t_us
        return cls(recording.first_t_us, recording.last_t_us or recording.first_t_us, start_us, has_own_start)

    @property
    def slack_us(self) -> int:
        return min(TAIL_US, self.last_us - self.first_us)

    def share(self, t_us: Int64[ndarray, " n"], *, strict: bool = False) -> float:
        """Of times on the file's own clock, how many lie within the span, or close to it."""
        slack_us = 0 if strict else self.slack_us
        inside = (t_us >= self.first_us - slack_us) & (t_us <= self.last_us + slack_us)
        return float(inside.mean())


def clock_of(times: Int64[ndarray, " n"], events: EventSpan, label_clock: str | None) -> str:
    """`start` or `recording`. Where nobody says it, all label times decide, the start where both fit alike."""
    if label_clock is not None:
        return label_clock
    if not events.has_own_start:
        return "recording"
    return "recording" if events.share(times) > events.share(times + events.start_us) else "start"


def contradiction_of(
    times: Int64[ndarray, " n"], events: EventSpan, said: Said, settings: PreprocessingConfig
) -> str | None:
    """What about ascending label times cannot be; None where all may be well."""
    clock = clock_of(times, events, said.label_clock)
    on_file = times + events.start_us if clock == "start" else times
    share = events.share(on_file)
    length_us, labels_us = events.last_us - events.first_us, int(on_file[-1] - on_file[0])
    covered_us = min(on_file[-1], events.last_us) - max(on_file[0], events.first_us)
    if share < FEW or (share < 0.5 and covered_us < length_us / 2):
        return f"{round(share * len(times)):,} of its {len(times):,} times lie among the events'"
    is_unit_given = settings.label_time_unit is not None or settings.time_unit is not None
    if not is_unit_given and len(times) > 1 and labels_us * _SHRUNK < length_us:
        longest_us = 1.05 * length_us + 2 * events.slack_us
        if any(length_us / 10 <= labels_us * ratio <= longest_us for ratio in (10**3, 10**6, 10**9)):
            return "they span a tiny part of the events, as if one of both were in another unit"
    if said.label_clock is None and not events.has_own_start:
        early = float((on_file < events.first_us).mean())
        shifted = events.share(on_file + events.first_us, strict=True)
        if early > FEW and shifted >= MOST and shifted > events.share(on_file, strict=True):
            count = int((on_file < events.first_us).sum())
            return f"{count:,} of its {len(times):,} times lie before the first event"
    return None
