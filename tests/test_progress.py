"""The time that a fit will take is said once, from the speed between two batches."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from modpose.cli import main
from modpose.progress import TIMED, Progress, bar


def test_the_time_of_a_fit_is_told_after_some_batches(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "modpose"),
        Progress("fit", 100_000, quiet=True, foretell=True) as bar,
    ):
        for batch in range(1, 2 * TIMED[1]):
            bar.advance(100, 3.0 + 0.6 * batch)  # 100 images in 0.6 s, after a slow start
    assert caplog.messages == ["the training takes about 10 minutes at this speed"]


def test_a_fit_within_a_time_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "modpose"),
        Progress("fit", 100, seconds=60, quiet=True) as bar,
    ):
        for batch in range(1, 2 * TIMED[1]):
            bar.advance(1, 0.1 * batch)
    assert not caplog.messages


def test_a_bar_of_at_most_so_many_images_is_full_in_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress("task", 10) as progress:
        progress.advance(4, 0.1)
        progress.finish()
    assert capsys.readouterr().err.split("\r")[-1].startswith("task: 100%")
    with Progress("task", 10, quiet=True) as progress:
        progress.finish()
    assert not capsys.readouterr().err


def test_quiet_hides_the_bars_of_every_verb_and_of_this_command_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown() -> str:
        with Progress("task", 2) as progress:
            progress.advance(2, 0.1)
        return capsys.readouterr().err

    asked = ["simulate", "particles", "--images", "2", "--box", "24", "--pixel-size", "7"]
    for number, quiet in enumerate(([], ["--quiet"], [])):
        with pytest.raises(SystemExit) as leaving:
            main([*asked, "-o", str(tmp_path / str(number)), *quiet])
        assert leaving.value.code == 0
        capsys.readouterr()
        assert ("task" in shown()) is not bool(quiet)
        assert bar(range(2)).disable is bool(quiet)


@pytest.mark.parametrize("verb", ["align", "abinitio", "encode", "pick"])
def test_verbs_take_quiet(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "--quiet" in capsys.readouterr().out
