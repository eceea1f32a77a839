"""The command line: exit codes, sentences, precedence, and one run from end to end."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import yaml

import modpose
import modpose.fit
from modpose.cli import main
from modpose.config import Config
from modpose.data.mrc import write_mrcs
from modpose.errors import InputError, TrainingError
from modpose.estimator import PoseModel
from modpose.options import option_names, resolve
from modpose.recipes import recipe_config
from modpose.run import Run
from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles

SMALL = ["--set", "model.encoder.hidden=16", "--set", "model.field.hidden=16"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        code = leaving.value.code
        return Result(code if isinstance(code, int) else -1, *capsys.readouterr())

    return run


def refused(result: Result, *words: str) -> None:
    """One sentence, exit code 2, nothing else on stderr but notes before it."""
    assert result.code == 2, result
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("modpose: ")
    assert "Traceback" not in result.err
    for word in words:
        assert word in last


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("particles")
    settings = HingeSettings(n=48, box=24, pixel_size=7.0, seed=3)
    return write_particles(simulate_particles(settings), folder)


# --- starting up ------------------------------------------------------------------------------


def test_help_imports_nothing_slow() -> None:
    program = (
        "import sys; from modpose.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'pandas', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'plotly'}\n"
        "sys.exit(f'imported {slow & set(sys.modules)}' if slow & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fit" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "modpose", "recipes"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "modpose: the disk is full, free some space and repeat\n"


def test_the_version_is_one_line(cli: Callable[..., Result]) -> None:
    assert modpose.__version__ == version("modpose")
    assert cli("--version") == (0, f"modpose {version('modpose')}\n", "")


@pytest.mark.parametrize("verb", [[], ["fit"], ["simulate"], ["simulate", "particles"]])
def test_h_is_help(cli: Callable[..., Result], verb: list[str]) -> None:
    assert cli(*verb, "-h") == cli(*verb, "--help")


def test_the_shell_completes_verbs_and_options(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, expected in (("modpose reci", "recipes"), ("modpose fit --z", "--z-dim")):
        monkeypatch.setenv("_MODPOSE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert cli().out.split() == [expected]


def test_figures_need_no_backend_of_a_notebook(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://not_installed_here")
    assert cli("--version").code == 0
    assert os.environ["MPLBACKEND"] == "agg"


def test_without_arguments_the_help_is_shown(cli: Callable[..., Result]) -> None:
    result = cli()
    assert result.code == 0
    assert "Commands:" in result.out


@pytest.mark.parametrize(
    "verb",
    [
        "fit",
        "resume",
        "inspect",
        "report",
        "recipes",
        "encode",
        "map",
        "export",
        "select",
        "experiment",
    ],
)
def test_every_verb_teaches_with_an_example(cli: Callable[..., Result], verb: str) -> None:
    assert f"\n  modpose {verb} " in cli(verb, "--help").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ft"], ["No such command 'ft'", "fit"]),
        (["fit", "x.star", "-o", "r", "--z-dm", "3"], ["--z-dm", "Did you mean --z-dim"]),
        (["fit", "x.star", "-o", "r", "--epochs", "many"], ["--epochs", "integer"]),
        (
            ["embed", "r", "--method", "pcaa"],
            ["Invalid value for '--method': 'pcaa' is not one of"],
        ),
        (["fit"], ["INPUT is missing"]),
        (["fit", "x.star"], ["-o RUN is missing"]),
        (["fit", "x", "-o", "r", "--recipe", "spatial-vea"], ["spatial-vea", "'spatial-vae'"]),
        (["fit", "x", "-o", "r", "--epochs", "0"], ["--epochs: train.epochs is 0"]),
        (["fit", "x", "-o", "r", "--normalize", "max"], ["--normalize", "'max'"]),
        (["fit", "x", "-o", "r", "--set", "train.lrate=1"], ["train.lrate", "train.lr"]),
        (["fit", "x", "-o", "r", "--set", "epochs=1"], ["epochs", "train.epochs"]),
        (["fit", "x", "-o", "r", "--set", "train.lr"], ["train.lr", "section.option=value"]),
        (["fit", "x", "-o", "r", "--set", "train.lr=["], ["train.lr=[", "not readable"]),
        (["fit", "x", "-o", "r", "--set", "seed=-1"], ["seed is -1"]),
        (["fit", "x", "-o", "r", "--config", "no.yaml"], ["no.yaml: no such"]),
        (["fit", "nowhere.star", "-o", "r"], ["nowhere.star", "no such file"]),
        (["fit", "--resume", "nowhere"], ["nowhere: no such run folder"]),
        (["fit", "--resume", "r", "--lr", "0.1"], ["--lr is given too"]),
        (["fit", "x.star", "--resume", "r"], ["INPUT is given too"]),
        (["report", "nowhere"], ["nowhere"]),
        (["export", "nowhere", "-o", "x.star"], ["nowhere: no such run folder"]),
        (["select", "nowhere", "-o", "x.star", "--cluster", "1"], ["nowhere"]),
        (["encode", "nowhere", "x.star", "-o", "x.csv"], ["nowhere"]),
        (["inspect", "nowhere.mrc"], ["nowhere.mrc"]),
        (["recipes", "vea"], ["'vea'", "'vae'"]),
        (["experiment", "spatial"], ["-o"]),
        (["experiment", "spatial", "-o", "x"], ["spatial", "one of spatial-vae"]),
        (["simulate", "particles", "-o", "x", "--box", "4"], ["box is 4"]),
    ],
)
def test_wrong_arguments_are_one_sentence(
    cli: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(cli(*arguments), *words)
    assert list(tmp_path.iterdir()) == []


# --- bad input --------------------------------------------------------------------------------


def write_stack(path: Path, images: np.ndarray, pixel_size: float = 2.0) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(images.astype(np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size


def write_star(path: Path, names: list[str], **columns: float) -> None:
    starfile.write(pd.DataFrame({"rlnImageName": names, **columns}), path, overwrite=True)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 16, 16)).astype(np.float32)


def truncated_mrc(folder: Path, images: np.ndarray) -> str:
    write_stack(folder / "a.mrcs", images)
    content = (folder / "a.mrcs").read_bytes()
    (folder / "a.mrcs").write_bytes(content[:-100])
    return "a.mrcs"


def lying_header(folder: Path, images: np.ndarray) -> str:
    write_stack(folder / "a.mrcs", images)
    with (folder / "a.mrcs").open("r+b") as file:
        file.seek(12)
        file.write((1).to_bytes(4, "little"))
    return "a.mrcs"


def no_image_column(folder: Path, images: np.ndarray) -> str:
    starfile.write({"particles": pd.DataFrame({"rlnDefocusU": [1e4, 2e4]})}, folder / "a.star")
    return "a.star"


def dangling_path(folder: Path, images: np.ndarray) -> str:
    write_star(folder / "a.star", ["000001@gone.mrcs", "000002@gone.mrcs"])
    return "a.star"


def number_out_of_range(folder: Path, images: np.ndarray) -> str:
    write_stack(folder / "a.mrcs", images)
    write_star(folder / "a.star", ["000001@a.mrcs", "000009@a.mrcs"])
    return "a.star"


def not_a_number(folder: Path, images: np.ndarray) -> str:
    images[3, 2, 2] = np.nan
    np.save(folder / "a.npy", images)
    return "a.npy"


def constant(folder: Path, images: np.ndarray) -> str:
    images[:] = 0.5
    np.save(folder / "a.npy", images)
    return "a.npy"


def mixed_boxes(folder: Path, images: np.ndarray) -> str:
    write_stack(folder / "a.mrcs", images)
    write_stack(folder / "b.mrcs", images[:, :12, :12])
    write_star(folder / "a.star", ["000001@a.mrcs", "000001@b.mrcs"])
    return "a.star"


def no_pixel_size(folder: Path, images: np.ndarray) -> str:
    write_stack(folder / "a.mrcs", images)
    write_star(folder / "a.star", ["000001@a.mrcs", "000002@a.mrcs"], rlnImagePixelSize=0.0)
    return "a.star"


def pickled(folder: Path, images: np.ndarray) -> str:
    np.save(folder / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return "a.npy"


def a_text(folder: Path, images: np.ndarray) -> str:
    (folder / "a.txt").write_text("hello")
    return "a.txt"


def empty_folder(folder: Path, images: np.ndarray) -> str:
    (folder / "pictures").mkdir()
    return "pictures"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncated_mrc, ["a.mrcs", "truncated", "expected"]),
        (lying_header, ["a.mrcs", "longer than its header says"]),
        (no_image_column, ["a.star", "rlnImageName"]),
        (dangling_path, ["a.star", "gone.mrcs", "--datadir"]),
        (number_out_of_range, ["a.star", "image 9 of", "holds 6"]),
        (not_a_number, ["a.npy", "image 4", "NaN"]),
        (constant, ["a.npy", "constant"]),
        (mixed_boxes, ["a.star", "16x16", "12x12"]),
        (no_pixel_size, ["a.star", "rlnImagePixelSize", "0", "positive"]),
        (pickled, ["a.npy"]),
        (a_text, ["a.txt", "cannot be found", "hello"]),
        (empty_folder, ["pictures", "without images"]),
    ],
)
def test_bad_input_is_one_sentence(
    cli: Callable[..., Result],
    tmp_path: Path,
    images: np.ndarray,
    spoil: Callable[[Path, np.ndarray], str],
    words: list[str],
) -> None:
    name = spoil(tmp_path, images)
    before = {path.name for path in tmp_path.iterdir()}
    result = cli("fit", tmp_path / name, "-o", tmp_path / "run", "--epochs", 1, *SMALL)
    refused(result, *words)
    left = {path.name for path in tmp_path.iterdir()} - before
    assert "latents.parquet" not in {path.name for path in tmp_path.rglob("*")}
    assert left <= {"run"}


@pytest.mark.parametrize(
    ("content", "words"),
    [("0\n99\n", ["99", "0 to 47"]), ("a\nb\n", ["'b'"]), ("\n", ["at least one", "0"])],
)
def test_a_bad_index_is_refused(
    cli: Callable[..., Result], tmp_path: Path, particles: Path, content: str, words: list[str]
) -> None:
    (tmp_path / "keep.txt").write_text(content)
    result = cli("fit", particles, "-o", tmp_path / "run", "--index", tmp_path / "keep.txt")
    refused(result, *words)
    assert not (tmp_path / "run").exists()


def test_labels_that_are_not_there(
    cli: Callable[..., Result], tmp_path: Path, particles: Path
) -> None:
    near = ["no such file", "no column 'modposeTruthHnge', did you mean modposeTruthHinge"]
    refused(cli("fit", particles, "-o", tmp_path / "run", "--labels", "modposeTruthHnge"), *near)
    (tmp_path / "few.txt").write_text("1\n2\n")
    labels = tmp_path / "few.txt"
    refused(cli("fit", particles, "-o", tmp_path / "run", "--labels", labels), "48", "(2,)")


def test_files_that_cannot_be_fitted(
    cli: Callable[..., Result], tmp_path: Path, some_data: Path
) -> None:
    for name in (
        "mrc/malformed_mode_mismatch.mrc",
        "mrc/malformed_header_only.mrc",
        "star/malformed_duplicate_tag.star",
        "star/malformed_extra_field.star",
        "star/relion_job.star",
        "star/relion_model.star",
        "star/PfCRT_FinalRefinement.star",
        "cs/pose.cs.pkl",
    ):
        result = cli("fit", some_data / name, "-o", tmp_path / "run")
        refused(result, Path(name).name)
        assert not (tmp_path / "run").exists(), name


# --- errors on the way ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("a: b is c, expected d"), 2, "modpose: a: b is c, expected d\n"),
        (TrainingError("the loss is nan"), 1, "modpose: the loss is nan\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/r/x"), 2, "disk is full"),
        (RuntimeError("write failed: No space left on device"), 2, "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/r/x"), 2, "/r/x: permission denied"),
    ],
)
def test_errors_become_sentences(
    cli: Callable[..., Result],
    tmp_path: Path,
    particles: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    sentence: str,
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(modpose.fit, "fit_run", fail)
    result = cli("fit", particles, "-o", tmp_path / "run")
    assert result.code == code
    assert sentence in result.err
    assert "Traceback" not in result.err


def test_our_own_mistakes_keep_their_traceback(
    tmp_path: Path, particles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(modpose.fit, "fit_run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["fit", str(particles), "-o", str(tmp_path / "run")])


def test_an_interrupted_fit_says_how_to_go_on(
    cli: Callable[..., Result], tmp_path: Path, particles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(modpose.fit, "start", interrupt)
        result = cli("fit", particles, "-o", tmp_path / "run")
    assert result.code == 130
    assert f"continue with: modpose fit --resume {tmp_path / 'run'}" in result.err
    monkeypatch.setattr(modpose.fit, "fit_run", interrupt)
    result = cli("fit", particles, "-o", tmp_path / "other")
    assert result.code == 130 and "interrupted; nothing" in result.err


# --- precedence -------------------------------------------------------------------------------


@pytest.fixture
def resolved(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Config, str]]:
    """The configuration that fit would train with, and what was said about it."""
    caught: list[Config] = []

    def catch(source: object, config: Config, *arguments: object, **options: object) -> None:
        caught.append(config)
        raise InputError("caught")

    monkeypatch.setattr(modpose.fit, "fit_run", catch)

    def run(*arguments: object) -> tuple[Config, str]:
        result = cli("fit", *arguments, "-o", tmp_path / "run")
        assert caught, result.err
        return caught[-1], result.err

    return run


def test_recipe_file_flag_and_set_in_order(
    resolved: Callable[..., tuple[Config, str]], tmp_path: Path, particles: Path
) -> None:
    options = {"recipe": "vae", "train": {"epochs": 7, "lr": 0.5, "batch_size": 11}, "seed": 4}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(options))
    file = ["--config", tmp_path / "my.yaml"]
    config, said = resolved(particles, *file)
    assert (config.recipe, config.train.epochs, config.seed) == ("vae", 7, 4)
    assert config.model.field.kind == "dense"
    assert "recipe vae;" in said
    config, _ = resolved(particles, *file, "--recipe", "spatial-vae", "--epochs", 3, "--seed", 9)
    assert (config.recipe, config.train.epochs, config.seed) == ("spatial-vae", 3, 9)
    assert (config.train.lr, config.train.batch_size) == (0.5, 11)
    config, _ = resolved(particles, *file, "--lr", 0.1, "--set", "train.lr=1e-3")
    assert config.train.lr == 1e-3


def test_defaults_suit_the_data_and_are_told(
    resolved: Callable[..., tuple[Config, str]], tmp_path: Path, particles: Path
) -> None:
    config, said = resolved(particles)
    assert config.model.likelihood.kind == "gaussian"
    assert config.data.normalize == "image"
    assert "recipe modpose (the default)" in said
    pictures = np.random.default_rng(0).integers(0, 256, (20, 12, 12), dtype=np.uint8)
    np.save(tmp_path / "digits.npy", pictures)
    config, said = resolved(tmp_path / "digits.npy")
    assert config.model.likelihood.kind == "bernoulli"
    assert config.data.normalize == "range"
    assert "Bernoulli" in said
    config, _ = resolved(tmp_path / "digits.npy", "--set", "model.likelihood.kind=gaussian")
    assert config.model.likelihood.kind == "gaussian"


def test_a_recipe_as_printed_reads_back(cli: Callable[..., Result]) -> None:
    printed = yaml.safe_load(cli("recipes", "beta-vae").out)
    assert resolve(printed) == resolve(recipe_config("beta-vae"))
    assert printed["train"]["beta"]["end"] == 4


def test_every_option_name_leads_to_an_option() -> None:
    names = set(option_names())
    assert {"seed", "train.lr", "model.encoder.init", "model.likelihood.softplus"} <= names
    assert "train.beta.end" in names
    assert "train" not in names


# --- from end to end --------------------------------------------------------------------------


def test_from_images_to_selection(
    cli: Callable[..., Result], tmp_path: Path, particles: Path
) -> None:
    run = tmp_path / "run"
    small = [*SMALL, "--batch-size", 16, "--set", "train.delay_z_steps=0"]
    fit = cli("fit", particles, "-o", run, "--epochs", 2, "--clusters", 2, "--z-dim", 2, *small)
    assert fit.code == 0, fit.err
    assert fit.out == f"saved {run}; next: modpose report {run}\n"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["train"]["epochs"], saved["model"]["field"]["hidden"]) == (2, 16)

    refused(cli("fit", particles, "-o", run, *small), "a run already exists here", "--overwrite")
    refused(cli("fit", particles, "-o", particles.parent), "no modpose run")
    refused(cli("resume", run), "finished")
    longer = cli("fit", "--resume", run, "--epochs", 3)
    assert longer.code == 0, longer.err
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3

    export = cli("export", run, "-o", tmp_path / "out")
    assert export.code == 0, export.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "aligned.mrcs",
        "denoised.mrcs",
        "latents.csv",
        "particles.star",
    ]

    encode = cli("encode", run, particles, "-o", tmp_path / "new.parquet")
    assert encode.code == 0, encode.err
    new, old = pd.read_parquet(tmp_path / "new.parquet"), pd.read_parquet(run / "latents.parquet")
    np.testing.assert_allclose(new["z_0"], old["z_0"], rtol=1e-4, atol=1e-6)

    kept = tmp_path / "kept.star"
    median = float(old["z_0"].median())
    where = f"z_0 > {median!r} and modposeTruthHinge > -99"
    select = cli("select", run, "--where", where, "-o", kept)
    assert select.out == f"kept 24 of 48 images; wrote {kept}\n"
    names = starfile.read(kept)["particles"]["rlnImageName"].tolist()
    expected = [f"{i + 1:06d}@particles.mrcs" for i in np.flatnonzero(old["z_0"] > median)]
    assert names == expected
    refused(cli("select", run, "-o", tmp_path / "all.star"), "--cluster, --where or --region")
    refused(cli("select", run, "--cluster", 5, "-o", tmp_path / "c.star"), "cluster is 5")
    refused(cli("select", run, "--where", "exp(z_0) > 1", "-o", tmp_path / "c.star"), "--where")
    box = cli("select", run, "--region", "-9,-9,9,9", "-o", tmp_path / "box.txt")
    assert box.out.startswith("kept 48 of 48")
    assert not (tmp_path / "c.star").exists()


def test_a_fit_says_its_device_precision_and_time(
    cli: Callable[..., Result], tmp_path: Path, particles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, flags = tmp_path / "run", ["--device", "cpu", "--precision", "bf16-mixed", "--quiet"]
    fit = cli("fit", particles, "-o", run, "--epochs", 2, "--max-minutes", 5, *flags, *SMALL)
    assert fit.code == 0
    rounded = "precision bf16-mixed (products of matrices are rounded to three digits)"
    said = f"device cpu, {rounded}; 2 epochs, at most 5 min of training"
    assert fit.err.splitlines()[1:] == [said]  # the first is about the recipe; no progress bars
    train = Run.open(run).config.train
    assert (train.accelerator, train.precision) == ("cpu", "bf16-mixed")

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device in ("cuda", "gpu"):
        refused(cli("resume", run, "--epochs", 3, "--device", device), "--device", f"'{device}'")
        with pytest.raises(InputError, match="device"):
            PoseModel.load(run, device=device)
    assert Run.open(run).config.train == train
    resumed = cli("fit", "--resume", run, "--epochs", 3, "--device", "auto", "--quiet")
    assert resumed.code == 0
    assert f" {rounded}; 1 more epoch, less than a minute" in resumed.err
    assert "img/s" not in resumed.err
    assert Run.open(run).config.train.accelerator == "auto"


def test_a_gpu_that_is_absent_is_one_sentence(
    cli: Callable[..., Result], tmp_path: Path, particles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(cli("fit", particles, "-o", tmp_path / "run", "--device", "cuda"), "no device 'cuda'")
    refused(cli("fit", particles, "-o", tmp_path / "run", "--precision", "16"), "'bf16-mixed'")
    assert list(tmp_path.iterdir()) == []


def test_inspect_tells_what_a_file_is(cli: Callable[..., Result], particles: Path) -> None:
    result = cli("inspect", particles)
    assert result.code == 0
    for word in ("48", "24 x 24", "7 A", "hinge_deg"):
        assert word in result.out


def test_simulated_files_are_not_replaced_silently(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    small = ["simulate", "particles", "-o", tmp_path, "--images", 4]
    assert cli(*small).code == 0
    refused(cli(*small), "particles.mrcs")
    assert cli(*small, "--overwrite", "--hinge", -5, 5).code == 0
    hinge = starfile.read(tmp_path / "particles.star")["particles"]["modposeTruthHinge"]
    assert hinge.abs().max() <= 5


def test_a_note_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``inspect`` opens a table twice; the guess of a path is said once."""
    write_mrcs(tmp_path / "moved.mrcs", np.zeros((2, 8, 8), np.float32), 2.0)
    table = "data_\n\nloop_\n_rlnImageName #1\n1@Extract/moved.mrcs\n2@Extract/moved.mrcs\n"
    (tmp_path / "particles.star").write_text(table)
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "particles.star")])
    said = [line for line in capsys.readouterr().err.splitlines() if "moved.mrcs" in line]
    assert len(said) == 1


def test_axes_are_those_of_an_array_and_no_others(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    values = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    np.save(tmp_path / "colours.npy", np.stack([values, values, values], 1))
    few = ["--epochs", 1, *SMALL]
    assert (
        cli("fit", tmp_path / "colours.npy", "-o", tmp_path / "run", "--axes", "NCYX", *few)[0] == 0
    )
    assert Run.open(tmp_path / "run").environment["channels"] == 3
    write_mrcs(tmp_path / "images.mrcs", values, 4.0)
    starfile.write(
        pd.DataFrame({"rlnImageName": [f"{k}@images.mrcs" for k in range(1, 17)]}),
        tmp_path / "images.star",
    )
    star, out = tmp_path / "images.star", tmp_path / "other"
    refused(cli("fit", star, "-o", out, "--axes", "NCYX"), "images.star: data.kind (--axes) is")
    refused(
        cli("fit", star, "-o", out, "--set", "data.kind=volumes"), "is 'volumes', expected auto"
    )
    refused(cli("inspect", star, "--axes", "NCYX"), "--axes is 'NCYX', expected none for a table")
    with pytest.raises(InputError, match=r"data\.kind"):
        PoseModel(options={"data": {"kind": "NCYX"}}).fit(star)
    assert cli("fit", star, "-o", out, "--axes", "images", *few)[0] == 0
