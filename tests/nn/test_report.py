import io
import logging
import sys

import pytest

from stages.nn.report import Report


def show(epochs, curves):
    report = Report([1.0] * epochs, [], curves)
    for epoch in range(epochs):
        for _ in range(3):
            report.step(epoch, 3, 1)
        report.epoch({"epoch": epoch + 1, "loss": 1 / (epoch + 1), "dice": 0.5})
    report.close()


@pytest.mark.parametrize("epochs", [1, 3, 100, 2000])
def test_a_log_gets_a_few_lines_with_the_time_left(tmp_path, caplog, epochs):
    with caplog.at_level(logging.INFO):
        show(epochs, tmp_path)
    assert min(epochs, 20) <= len(caplog.messages) <= 22
    assert caplog.messages[0].startswith(f"epoch 1 of {epochs}: loss 1.0000, Dice 0.5")
    last = (
        f"epoch {epochs} of {epochs}: loss {1 / epochs:.4f}, Dice 0.5000; about 00:00"
    )
    assert caplog.messages[-1].startswith(last)


def test_a_terminal_gets_one_bar_and_no_lines(tmp_path, caplog, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with caplog.at_level(logging.INFO):
        show(100, tmp_path)
    assert not caplog.messages
    assert screen.getvalue().count("\n") == 1
    assert "100%" in screen.getvalue()
    assert "epoch 100 of 100: loss 0.0100, Dice 0.5000" in screen.getvalue()
