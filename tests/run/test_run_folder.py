"""The run folder: how it is known and replaced, who writes to it, and what a kill leaves."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import modpose.fit
import modpose.train.session
from modpose import InputError, PoseModel, Run, fit_run, open_source, resume_run
from modpose.cli import main
from modpose.config import Config, merge, parse_config
from modpose.files.locks import LOCK, writing
from modpose.recipes import recipe_config
from modpose.run.folder import MARKER, NEW, put_in_place
from modpose.train.checkpoint import save_checkpoint

TINY: dict[str, Any] = {
    "model": {"z_dim": 1, "encoder": {"hidden": 8}, "field": {"hidden": 8}},
    "train": {"epochs": 3, "batch_size": 16, "pixels": 50, "accelerator": "cpu"},
}
SLOW = ["--recipe", "spatial-vae", "--set", "train.epochs=4000", "--set", "model.field.hidden=8"]
SLOW += ["--set", "model.encoder.hidden=8", "--set", "train.batch_size=16"]


def tiny(**sections: Any) -> Config:
    return parse_config(merge(merge(recipe_config("spatial-vae"), TINY), sections), "spatial-vae")


def table_config(pretrained: Path | None) -> Config:
    run = None if pretrained is None else str(pretrained)
    encoder = {"kind": "table", "init": "pretrained", "run": run}
    values = merge(recipe_config("spatial-vae"), {"train": TINY["train"]})
    values = merge(values, {"model": {"encoder": encoder, "z_dim": 1}, "data": {"val_fraction": 0}})
    return parse_config(values, "spatial-vae")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "stack.npy"
    np.save(path, np.random.default_rng(0).standard_normal((40, 16, 16)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def first(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fit a run that nobody changes."""
    path = tmp_path_factory.mktemp("runs") / "run"
    return fit_run(open_source(stack), tiny(), path, quiet=True).path


@pytest.fixture
def run(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "run"))


def test_a_fit_in_memory_ends_as_one_in_a_folder(first: Path, stack: Path, tmp_path: Path) -> None:
    run, config = Run.open(first), tiny()
    options = config.model_dump(exclude={"recipe", "seed"})
    model = PoseModel(config.recipe, options=options, seed=config.seed, quiet=True).fit(stack)
    ending = {"finished", "stopped", "device", "training_seconds", "best_epoch", "alarms"}
    assert ending <= set(model.environment) <= set(run.environment)
    for name in ending - {"finished", "training_seconds"}:
        assert model.environment[name] == run.environment[name]
    pd.testing.assert_frame_equal(model.latents(), run.latents())
    assert Run.open(model.save(tmp_path / "saved").path).environment["best_epoch"] is not None


def contents(folder: Path) -> dict[str, str]:
    """Checksum of every file of a folder, leftovers and the beginnings of another run apart."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {str(path.relative_to(folder)): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith((NEW, LOCK))
    }


def stop_after(epoch: int, error: BaseException) -> Callable[..., None]:
    def save(folder: Path, at: int, *rest: Any, **named: Any) -> None:
        save_checkpoint(folder, at, *rest, **named)
        if at == epoch:
            raise error

    return save


# --- how a run is known -----------------------------------------------------------------------


def test_a_run_has_a_marker_and_a_newer_format_is_refused(run: Path) -> None:
    values = json.loads((run / MARKER).read_text())
    assert values["format"] == 1
    for name, checksum in values["sha256"].items():
        assert hashlib.sha256((run / name).read_bytes()).hexdigest() == checksum
    (run / MARKER).write_text(json.dumps(values | {"format": 2}))
    with pytest.raises(InputError, match=r"format 2.*up to 1"):
        Run.open(run)
    with pytest.raises(InputError, match="format 2"), Run.begin(run, tiny(), {}):
        pass
    (run / MARKER).write_text("{nonsense")
    with pytest.raises(InputError, match=f"{MARKER}: not readable"):
        Run.open(run)


def test_a_run_of_version_0_1_opens_and_is_marked_when_it_is_written_to(
    run: Path, stack: Path
) -> None:
    before = Run.open(run).latents()
    (run / MARKER).unlink()
    old = Run.open(run)
    assert old.finished
    pd.testing.assert_frame_equal(old.latents(), before)
    longer = resume_run(run, epochs=4, quiet=True)
    assert "sha256" in json.loads((run / MARKER).read_text())
    assert longer.metrics()["epoch"].tolist() == [1, 2, 3, 4]
    (run / MARKER).unlink()
    fit_run(open_source(stack), tiny(), run, overwrite=True, quiet=True)
    pd.testing.assert_frame_equal(Run.open(run).latents(), before)


@pytest.mark.parametrize("config", ["recipe: x\nlr: 1\n", "[1, 2]", "model: 3", ""])
def test_a_folder_of_another_program_is_never_touched(
    config: str, stack: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    (other / "report").mkdir()
    (other / "config.yaml").write_text(config)
    (other / "checkpoints" / "best.safetensors").write_text("theirs")
    (other / "report" / "index.html").write_text("theirs")
    (other / "environment.json").write_text("{}")
    before = contents(other)
    with pytest.raises(InputError, match="no modpose run"):
        fit_run(open_source(stack), tiny(), other, overwrite=True, quiet=True)
    assert contents(other) == before


def test_damaged_weights_and_latents_are_refused(run: Path) -> None:
    for name in ("checkpoints/best.safetensors", "latents.parquet"):
        whole = (run / name).read_bytes()
        middle = len(whole) // 2
        (run / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        for use in (Run.latents, lambda opened: PoseModel.load(opened.path)):
            with pytest.raises(InputError, match=rf"{name}: .*checksum"):
                use(Run.open(run))
        (run / name).write_bytes(whole)
    assert len(Run.open(run).latents()) == 40
    (run / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"):
        Run.open(run).latents()


def test_what_a_kill_leaves_in_place_of_a_new_run_is_begun_anew(
    stack: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f".{MARKER}.123456789.part").write_text("half")
    (folder / LOCK).write_text("{}")
    fit_run(open_source(stack), tiny(), folder, quiet=True)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


# --- replacing a run --------------------------------------------------------------------------


def test_a_run_that_is_to_be_replaced_survives_what_goes_wrong(
    run: Path, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "exported.star").write_text("mine")
    before = contents(run)
    source = open_source(stack)

    def fit(config: Config, **options: Any) -> None:
        fit_run(source, config, run, overwrite=True, quiet=True, **options)

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="no device 'cuda'"):
        fit(tiny(train={"accelerator": "cuda"}))
    labels: Any = np.array([b"a", 1j] * 20, dtype=object)
    with pytest.raises(InputError, match="labels"):
        fit(tiny(), labels=labels)
    pairs = np.empty(40, dtype=object)
    pairs[:] = [(1, 2)] * 40
    days = np.arange(40).astype("datetime64[D]")
    for strange in (days, pairs, np.array([2**70, 1] * 20), np.array(["\udc80"] * 40, object)):
        with pytest.raises(InputError, match="label"):
            fit(tiny(), labels=strange)
    with pytest.raises(InputError, match=r"encoder\.run is missing"):
        fit(table_config(None))
    with monkeypatch.context() as patch:
        patch.setattr("modpose.fit.start", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(tiny())
    assert contents(run) == before and not (run / NEW).exists()
    for error in (KeyboardInterrupt(), MemoryError()):
        with monkeypatch.context() as patch:
            patch.setattr(modpose.train.session, "save_checkpoint", stop_after(2, error))
            with pytest.raises(type(error)):
                fit(tiny(seed=5))
        assert contents(run) == before
    resumed = resume_run(run, quiet=True)
    whole = fit_run(source, tiny(seed=5), tmp_path / "whole", quiet=True)
    pd.testing.assert_frame_equal(resumed.latents(), whole.latents())
    assert (run / "exported.star").read_text() == "mine" and not (run / NEW).exists()
    assert resumed.config.seed == 5


def test_a_kill_while_a_run_is_replaced_is_made_good_by_the_next_that_opens_it(
    run: Path, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_run(open_source(stack), tiny(seed=1), tmp_path / "other", quiet=True)
    (run / "report").mkdir()
    (run / "report" / "index.html").write_text("of the old run, by modpose")
    (run / "report" / "notes.txt").write_text("mine")
    expected = contents(tmp_path / "other") | {"report/notes.txt": hashed(b"mine")}
    rename = Path.replace
    for moves in range(8):
        place = Path(shutil.copytree(run, tmp_path / f"copy{moves}"))
        shutil.copytree(tmp_path / "other", place / NEW)
        count = [0]

        def killed(path: Path, target: Path, count: list[int] = count, at: int = moves) -> Any:
            if NEW in path.parts and NEW not in Path(target).parts:
                count[0] += 1
                if count[0] > at:
                    raise KeyboardInterrupt
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                put_in_place(place)
        assert Run.open(place).config.seed == 1
        assert contents(place) == expected
        assert not (place / NEW).exists()


def hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_list_of_files_to_move_names_only_our_own(run: Path, tmp_path: Path) -> None:
    (run / NEW).mkdir()
    (tmp_path / "theirs.txt").write_text("precious")
    names = [f"../{'theirs.txt'}", "../../theirs.txt", "/etc/passwd", "checkpoints/../../x"]
    (run / NEW / "ready.json").write_text(json.dumps(names))
    Run(run).path.joinpath("mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not a modpose run"):
        Run.open(run)
    assert (tmp_path / "theirs.txt").read_text() == "precious"
    assert (run / "mine.txt").read_text() == "mine"


def test_an_output_that_is_an_input_is_refused(run: Path, stack: Path, tmp_path: Path) -> None:
    inside = run / "stack.npy"
    shutil.copy(stack, inside)
    before = contents(run)
    with pytest.raises(InputError, match=r"stack\.npy lies in this folder"):
        fit_run(open_source(inside), tiny(), run, overwrite=True, quiet=True)
    with pytest.raises(InputError, match="is this folder"):
        fit_run(open_source(stack), table_config(run), run, overwrite=True, quiet=True)
    assert contents(run) == before
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    from PIL import Image

    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16)).astype(np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    with pytest.raises(InputError, match="lies in the input"):
        fit_run(open_source(pictures), tiny(), pictures / "run", quiet=True)
    assert not (pictures / "run").exists()


# --- going on with a finished run -------------------------------------------------------------


def test_a_finished_run_stays_whole_while_it_is_trained_for_longer(
    run: Path, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)
    with monkeypatch.context() as patch:
        patch.setattr(modpose.train.session, "save_checkpoint", stop_after(5, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            resume_run(run, epochs=6, quiet=True)
    assert contents(run) == before
    model = PoseModel.load(Run.open(run).path)
    np.testing.assert_allclose(
        model.encode(stack).z[:, 0], model.latents()["z_0"], rtol=1e-5, atol=1e-6
    )
    resumed = resume_run(run, quiet=True)  # to the epochs that were requested
    again = Path(shutil.copytree(tmp_path / "run", tmp_path / "again"))
    assert resumed.metrics()["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    once = resume_run(again, epochs=6 + 1, quiet=True)
    assert once.metrics()["epoch"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_a_run_whose_longer_training_fails_at_once_is_what_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)
    monkeypatch.setattr("modpose.fit.train_model", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        resume_run(run, epochs=9, quiet=True)
    assert contents(run) == before and not (run / NEW).exists()


def test_latents_without_their_checksum_are_not_those_of_a_finished_run(
    run: Path, first: Path
) -> None:
    (run / MARKER).write_text('{"format": 1}')  # killed between the latents and the marker
    assert not Run.open(run).finished
    resumed = resume_run(run, quiet=True)
    pd.testing.assert_frame_equal(resumed.latents(), Run.open(first).latents())


def test_a_run_that_was_killed_after_it_stopped_early_does_not_go_on_training(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([-5.0, -3.0, -4.0, -4.5, -9.0, -9.0])
    monkeypatch.setattr("modpose.train.loop.validate", lambda *_: {"val_elbo": next(values)})
    config = tiny(train={"epochs": 50, "stop_epochs": 2, "delay_z_steps": 0})
    with monkeypatch.context() as patch:
        patch.setattr(modpose.train.session, "encode_dataset", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_run(open_source(stack), config, tmp_path / "run", quiet=True)
    resumed = resume_run(tmp_path / "run", quiet=True)
    assert len(resumed.metrics()) == 4 and resumed.environment["stopped"] == "validation"


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


# --- one writer at a time ---------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from modpose.files.locks import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(run: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_process_at_a_time_writes_to_a_run_and_a_dead_one_does_not_block(
    run: Path, stack: Path, holder: subprocess.Popen[str]
) -> None:
    match = f"another process writes.*{holder.pid}"
    with pytest.raises(InputError, match=match):
        resume_run(run, epochs=9, quiet=True)
    with pytest.raises(InputError, match=match):
        fit_run(open_source(stack), tiny(), run, overwrite=True, quiet=True)
    assert len(Run.open(run).latents()) == 40  # readers are not held up
    assert len(PoseModel.load(Run.open(run).path).latents()) == 40
    holder.kill()
    holder.wait()
    assert (run / LOCK).is_file()
    resume_run(run, epochs=4, quiet=True)
    assert not (run / LOCK).exists()


def test_a_report_and_an_alignment_hold_the_lock_too(
    run: Path, holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    from modpose import align_subtomograms
    from modpose.report.build import build_report

    with pytest.raises(InputError, match="another process writes"):
        build_report(run, quiet=True)
    volumes = np.random.default_rng(0).standard_normal((8, 16, 16, 16)).astype(np.float32)
    folder = tmp_path / "aligned"
    folder.mkdir()
    with writing(folder), pytest.raises(InputError, match="another process writes"):
        align_subtomograms(open_source(volumes, kind="volumes"), folder, quiet=True)


def test_a_disk_without_locks_knows_the_writer_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    lock = tmp_path / LOCK
    with writing(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()
    host = os.uname().nodename
    lock.write_text(json.dumps({"pid": os.getppid(), "host": host, "born": None}))
    with pytest.raises(InputError, match="another process"), writing(tmp_path):
        pass
    lock.write_text(json.dumps({"pid": os.getppid(), "host": host, "born": "1"}))
    with writing(tmp_path):  # the number was given again to another process
        pass
    done = subprocess.Popen(["true"])
    done.wait()
    lock.write_text(json.dumps({"pid": done.pid, "host": host, "born": "1"}))
    with writing(tmp_path):
        pass
    lock.write_text(json.dumps({"pid": done.pid, "host": "elsewhere", "born": "1"}))
    with pytest.raises(InputError, match=r"elsewhere.*remove .*\.lock"), writing(tmp_path):
        pass


# --- signals and kills ------------------------------------------------------------------------


def begin(stack: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "modpose", "fit", str(stack), "-o", str(out), *SLOW, *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for(path: Path, process: subprocess.Popen[str], lines: int = 2) -> None:
    deadline = time.monotonic() + 60
    while not path.is_file() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_sigterm_and_sighup_are_answered_like_ctrl_c(
    number: int,
    code: int,
    stack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    def signalled(*rest: Any, **named: Any) -> None:
        save_checkpoint(*rest, **named)
        os.kill(os.getpid(), number)

    # a suite that runs in the background of a shell ignores Ctrl-C
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, usual)))
    before, out = signal.getsignal(number), tmp_path / "run"
    monkeypatch.setattr(modpose.train.session, "save_checkpoint", signalled)
    with pytest.raises(SystemExit) as end:
        main(["fit", str(stack), "-o", str(out), *SLOW])
    err = capsys.readouterr().err
    assert end.value.code == code
    assert f"interrupted; continue with: modpose fit --resume {out}" in err
    assert len(Run.open(out).epochs()) == 1 and not (out / LOCK).exists()
    assert signal.getsignal(number) is before
    monkeypatch.setattr("modpose.data.inspect.describe", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(stack)])
    assert end.value.code == code and "modpose: interrupted" in capsys.readouterr().err


def test_interrupted_is_said_only_after_a_signal(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(*_: Any, **__: Any) -> None:
        raise EOFError("a file ended early")

    monkeypatch.setattr(modpose.fit, "fit_run", ends)
    with pytest.raises(EOFError):
        main(["fit", str(stack), "-o", str(tmp_path / "run")])
    assert "interrupted" not in capsys.readouterr().err


def test_an_overwriting_fit_that_is_killed_leaves_the_old_run_and_can_go_on(
    run: Path, stack: Path
) -> None:
    before = contents(run)
    process = begin(stack, run, "--overwrite")
    wait_for(run / NEW / "metrics.jsonl", process)
    process.kill()
    process.communicate()
    assert contents(run) == before
    assert len(Run.open(run).latents()) == 40
    done = len(Run(run / NEW).epochs())
    resumed = resume_run(run, epochs=done + 1, quiet=True)
    assert len(resumed.metrics()) == done + 1 and resumed.config.model.z_dim != 1


def test_a_saved_model_replaces_a_run_in_one_step(
    run: Path, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)
    model = PoseModel.load(run)
    with monkeypatch.context() as patch:
        patch.setattr("modpose.estimator.save_weights", full)
        with pytest.raises(OSError, match="full"):
            model.save(run, overwrite=True)
    assert contents(run) == before and not (run / NEW).exists()
    saved = model.save(run, overwrite=True)
    assert saved.path == run and saved.finished
    pd.testing.assert_frame_equal(saved.latents(), model.latents())


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "disk full")
