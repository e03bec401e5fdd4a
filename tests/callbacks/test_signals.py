"""What a stop leaves behind where Python drops exceptions; the rest is in reliability/test_signals.py."""

from __future__ import annotations

import signal
import sys
import weakref

import pytest

from callbacks.signals import SignalHandling, StopRequested
from data.loader import LoaderWatch


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = SignalHandling(LoaderWatch())
    signals.install()
    try:
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signals.uninstall()
        signal.signal(signal.SIGHUP, before)


class Referent:
    pass


def raise_inside_a_weak_reference_s_callback(error: Exception) -> None:
    def callback(_: object) -> None:
        raise error

    referent = Referent()
    reference = weakref.ref(referent, callback)
    del referent
    assert reference() is None


def test_a_dropped_stop_is_not_reported_but_other_errors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Exception] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
    before = sys.unraisablehook
    signals = SignalHandling(LoaderWatch())
    signals.install()
    try:
        raise_inside_a_weak_reference_s_callback(StopRequested(signal.SIGTERM))
        assert told == []
        error = ValueError("other")
        raise_inside_a_weak_reference_s_callback(error)
        assert told == [error]
    finally:
        signals.uninstall()
    assert sys.unraisablehook is before
