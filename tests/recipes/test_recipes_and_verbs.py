"""Every verb on every kind of run: it does what it says, or says in one sentence why not.

One recipe of each family is tried with the suite; MODPOSE_MATRIX=all tries all, with reports.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import yaml

from modpose.cli import main
from modpose.config import dump_config
from modpose.data.source import open_source
from modpose.options import resolve
from modpose.recipes import RECIPES, recipe_config

ALL = os.environ.get("MODPOSE_MATRIX") == "all"
SMALLER: dict[str, object] = {
    "hidden": 8, "angles": 16, "count": 8, "rank": 4, "drawn": 4, "profiles": 4, "lmax": 3,
    "rounds": 2, "refine_rounds": 1, "restarts": 1, "restart_epochs": 1, "epochs": 1, "channels": 4,
    "batch_size": 6, "decoded_images": 2, "cycles": 4, "codebook": 4, "proposals": 4, "patch": 2,
    "pixels": None, "proposal": 4, "contrast": 0,
}  # fmt: skip
POSED = {"modpose-posed", "cryodrgn", "vlt", "evil-twin", "evil-twin-large"}
VOLUMES = {"vae-3d", "3d-spvae", "3d-spvae++", "modpose-3d"}
EITHER = {"affinity-vae", "affinity-harmonic", "conv-vae"}
LABELLED = {"affinity-vae", "affinity-harmonic"}
SEARCHED = {name for name in RECIPES if name.startswith(("modpose", "spatial-vae-", "target"))}
SEARCHED |= {*POSED, "spatial-vae"}
SEARCHED -= {"spatial-vae-fixed"}
FAMILIES = [
    "modpose", "vae", "spatial-vae", "target-vae", "affinity-vae", "modpose-posed", "cryodrgn",
    "vlt", "evil-twin", "3d-spvae", "modpose-3d", "affinity-harmonic-3d", "conv-vae-3d",
]  # fmt: skip
EVERY = [*RECIPES, *(f"{name}-3d" for name in sorted(EITHER))]


def smaller(value: Any, name: str = "") -> Any:
    """Shrink a configuration to what a second is enough for."""
    if isinstance(value, dict):
        return {key: smaller(part, key) for key, part in value.items()}
    if isinstance(value, list) and name in ("channels", "widths"):
        return [4] * len(value)
    if name == "rotations" and value is not None:
        return 4 if value < 100 else 60
    return SMALLER[name] if value and name in SMALLER else value


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line; an answer other than 0 is one sentence, and nothing is written."""

    def run(*arguments: object, within: Path | None = None) -> Answer:
        before = files(within) if within else {}
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        answer = Answer(int(leaving.value.code or 0), *capsys.readouterr())
        if answer.code:
            assert answer.code == 2, answer.err
            assert "Traceback" not in answer.err
            last = answer.err.strip().splitlines()[-1]
            assert last.startswith("modpose: ")
            assert len(last) < 500
            assert not within or files(within) == before
        if within:
            assert not [path for path in within.rglob(".*") if path.name.endswith(".part")]
        return answer

    return run


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    made = {
        "pictures": ["particles", "--images", "12"],
        "posed": ["projections", "--images", "14", "--hinge", "-30", "30", "--maps", "2", "--ctf"],
        "volumes": ["subtomograms", "--volumes", "16", "--assemblies", "2"],
    }
    for name, arguments in made.items():
        with pytest.raises(SystemExit) as leaving:
            main(["simulate", *arguments, "--box", "16", "--pixel-size", "12",
                  "-o", str(folder / name)])  # fmt: skip
        assert not leaving.value.code
    (folder / "labels.txt").write_text("a\nb\nc\n" * 4)
    return folder


def fitted(name: str, data: Path, cli: Cli) -> tuple[Path, Path]:
    """Fit a recipe; return the run and its input."""
    recipe = name.removesuffix("-3d") if name.removesuffix("-3d") in EITHER else name
    volumes = recipe in VOLUMES or name != recipe
    source = data / ("posed" if recipe in POSED else "volumes" if volumes else "pictures")
    config = smaller(yaml.safe_load(dump_config(resolve(recipe_config(recipe)))))
    if recipe == "modpose-embedding":
        config["train"]["start"] = None
    (data / f"{name}.yaml").write_text(yaml.safe_dump(config))
    run = data / "runs" / name
    extra: list[object] = ["--clusters", 2] if recipe in ("spatial-vae", "cryodrgn") else []
    if recipe in LABELLED:
        labels = "modposeTruthClass" if volumes else data / "labels.txt"
        extra += ["--labels", labels, "--affinity", "fsc"]
    star = source / "particles.star"
    answer = cli("fit", star, "-o", run, "--recipe", recipe, "--config", data / f"{name}.yaml",
                 *extra)  # fmt: skip
    assert answer.code == 0, answer.err
    return run, star


@pytest.mark.parametrize("name", EVERY if ALL else FAMILIES)
def test_every_verb(name: str, data: Path, cli: Cli, tmp_path: Path) -> None:
    run, star = fitted(name, data, cli)
    posed = name in POSED
    solid = name in VOLUMES or name.endswith("-3d")
    n = open_source(star).n

    def answered(expected: bool, *arguments: object) -> Answer:
        answer = cli(*arguments, within=tmp_path)
        assert (answer.code == 0) == expected, (arguments, answer.err)
        return answer

    if ALL:
        answered(True, "report", run)
    _export_and_select(run, star, n, tmp_path, answered, pictures=not posed and not solid)
    # seen images are known to a lookup table, others are not: without search it refuses
    answered(name != "vlt", "encode", run, star, "-o", tmp_path / "l.parquet")
    answered(name in SEARCHED, "encode", run, star, "-o", tmp_path / "s.csv", "--search")
    assert cli("encode", run, star, "-o", tmp_path / "c.csv", "--copies", 3, within=tmp_path)
    labelled = name.removesuffix("-3d") in LABELLED
    answered(labelled, "map", run, star, "-o", tmp_path / "map.csv")
    _volumes(run, tmp_path, answered, draws=posed or solid)
    answered(posed, "score", run, "--maps", data / "posed" / "maps", "--reference")
    answered(False, "resume", run)
    answered(True, "resume", run, "--epochs", 2)
    table = pd.read_parquet(run / "latents.parquet")
    assert len(table) == n
    assert np.isfinite(table["elbo"]).all()


Ask = Callable[..., Answer]


def _export_and_select(run: Path, star: Path, n: int, out: Path, ask: Ask, pictures: bool) -> None:
    ask(True, "export", run, "-o", out / "all")
    ask(False, "export", run, "-o", out / "all")
    expected = {"particles.star", "latents.csv"}
    expected |= {"aligned.mrcs", "denoised.mrcs"} if pictures else set()
    assert {path.name for path in (out / "all").iterdir()} == expected
    ask(pictures, "export", run, "-o", out / "one.mrcs")
    ask(pictures, "export", run, "-o", out / "two", "--format", "csv", "--format", "mrcs")
    latents, given = pd.read_parquet(run / "latents.parquet"), open_source(star)
    again = open_source(out / "all" / "particles.star", datadir=star.parent)
    assert len(pd.read_csv(out / "all" / "latents.csv")) == n
    rows = np.arange(n)
    np.testing.assert_array_equal(again.stack.read(rows), given.stack.read(rows))
    known = again.particles.poses(again.pixel_size)
    if known is not None and "shift_x" in latents:
        moved = latents[["shift_x", "shift_y"]].to_numpy()
        # six decimals of angstrom, and shifts below 100 px in single precision
        np.testing.assert_allclose(known[1][:, :2], moved, rtol=1e-6, atol=1e-6)
    if "r00" in latents and known is not None:
        entries = latents[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy()
        # six decimals of degrees, and matrices in single precision
        np.testing.assert_allclose(known[0].reshape(n, 9), entries, atol=1e-6)
    ask(True, "select", run, "--where", "index < 3", "-o", out / "s.star")
    assert open_source(out / "s.star", datadir=star.parent).n == 3
    ask(True, "select", run, "--region=-1e9,-1e9,1e9,1e9", "-o", out / "s.txt")
    assert len((out / "s.txt").read_text().split()) == n
    ask("cluster" in latents, "select", run, "--cluster", "0", "-o", out / "c.txt")
    ask(False, "select", run, "--where", "index < 0", "-o", out / "none.star")
    ask(False, "select", run, "--where", "index < 3", "-o", out / "s.cs")


def _volumes(run: Path, out: Path, ask: Ask, draws: bool) -> None:
    width = yaml.safe_load((run / "config.yaml").read_text())["model"]["z_dim"]
    (out / "at.csv").write_text(",".join(["0"] * width) + "\n")
    stops = {
        "along": ["--along", 1, "--steps", 3], "cluster": ["--cluster", 2],
        "path": ["--path", "0..1", "--steps", 2, "--maps", "model"],
        "at": ["--at", out / "at.csv", "--flip-hand"],
    }  # fmt: skip
    for name, arguments in stops.items():
        ask(draws, "volumes", run, "-o", out / name, *arguments)
    if not draws:
        return
    fewer = ["--along", 1, "--steps", 2, "--maps", "model", "--overwrite"]
    ask(True, "volumes", run, "-o", out / "along", *fewer)
    found = {path.name for path in (out / "along").iterdir()}
    assert found == {"volume-001.mrc", "volume-002.mrc", "content.csv", "series.cxc", "strip.png"}


# --- kinds of input ---------------------------------------------------------------------------


def records(n: int) -> np.ndarray:
    """A cryoSPARC table with fields that must survive."""
    rng = np.random.default_rng(0)
    fields = [
        ("uid", "<u8"), ("blob/path", "S40"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4"),
        ("alignments3D/pose", "<f4", (3,)), ("alignments3D/shift", "<f4", (2,)),
        ("alignments3D/psize_A", "<f4"), ("filament/arc", "<f8", (2, 3)),
    ]  # fmt: skip
    table = np.zeros(n, fields)
    table["uid"] = rng.integers(1, 2**63, n)
    table["blob/path"], table["blob/idx"] = b">stack.mrcs", rng.permutation(n)
    table["blob/psize_A"] = table["alignments3D/psize_A"] = 12
    table["alignments3D/pose"] = rng.normal(size=(n, 3))
    table["filament/arc"] = rng.normal(size=(n, 2, 3))
    return table


def inputs(folder: Path, images: np.ndarray) -> dict[str, tuple[str, set[str]]]:
    """Name an input of each kind, and the formats that its images can be exported to."""
    import tifffile
    from PIL import Image

    n = len(images)
    np.save(folder / "array.npy", images)
    np.savez(folder / "arrays.npz", x=images, y=images)
    tifffile.imwrite(folder / "pages.tif", images)
    with mrcfile.new(folder / "stack.mrcs") as file:
        file.set_data(images)
        file.voxel_size = 12
    with (folder / "job.cs").open("wb") as raw:
        np.save(raw, records(n))
    low, high = images.min(), images.max()
    (folder / "pictures").mkdir()
    (folder / "maps").mkdir()
    for k, image in enumerate(images):
        grey = (255 * (image - low) / (high - low)).astype(np.uint8)
        Image.fromarray(grey).save(folder / "pictures" / f"im{k}.png")
        with mrcfile.new(folder / "maps" / f"{k}.mrc") as file:
            file.set_data(image)
            file.voxel_size = 12
    colour = np.random.default_rng(0).integers(0, 255, (n, 16, 16, 3)).astype(np.uint8)
    np.save(folder / "colour.npy", colour)
    names = "".join(f"pictures/im{k}.png,{k}\n" for k in range(n))
    (folder / "list.csv").write_text(f"image,tag\n{names}")
    head = "data_\n\nloop_\n_rlnImageName #1\n_rlnDetectorPixelSize #2\n_rlnMagnification #3\n"
    rows = "".join(f"{k + 1:06d}@stack.mrcs 12.0 10000.0\n" for k in range(n))
    (folder / "old.star").write_text(f"{head}{rows}")
    both = {"csv", "mrcs"}
    return {
        "npy": ("array.npy", both), "npz": ("arrays.npz:x", both), "tiff": ("pages.tif", both),
        "pictures": ("pictures", both), "csv": ("list.csv", both),
        "maps": ("maps", both | {"star"}),
        "colour": ("colour.npy", {"csv"}), "mrcs": ("stack.mrcs", both | {"star"}),
        "cs": ("job.cs", both | {"star", "cs", "csg"}), "star-3.0": ("old.star", both | {"star"}),
    }  # fmt: skip


@pytest.mark.parametrize("indexed", [False, True])
def test_every_kind_of_input(indexed: bool, data: Path, cli: Cli, tmp_path: Path) -> None:
    images = open_source(data / "pictures" / "particles.star").stack.read(np.arange(12))[:, 0]
    (tmp_path / "index.txt").write_text("7\n3\n11\n0\n5\n4\n")
    kept = np.array([7, 3, 11, 0, 5, 4]) if indexed else np.arange(12)
    config = smaller(yaml.safe_load(dump_config(resolve(recipe_config("spatial-vae")))))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    for name, (source, formats) in inputs(tmp_path, images).items():
        if indexed and name not in ("pictures", "cs", "star-3.0"):
            continue
        given, run, out = f"{tmp_path}/{source}", tmp_path / f"run-{name}", tmp_path / f"to-{name}"
        out.mkdir()
        extra = ["--index", tmp_path / "index.txt"] if indexed else []
        if name in ("colour", "pictures", "csv"):
            extra += ["--normalize", "range"]
        answer = cli("fit", given, "-o", run, "--recipe", "spatial-vae", "--config",
                     tmp_path / "small.yaml", *extra)  # fmt: skip
        assert answer.code == 0, answer.err
        assert cli("export", run, "-o", out, within=out).code == 0
        found = {path.suffix[1:] for path in out.iterdir()}
        assert found == formats
        for kind in {"star", "csv", "mrcs"} - formats:
            assert cli("export", run, "-o", out / f"x.{kind}", within=out).code == 2
        assert cli("select", run, "--where", "index >= 2", "-o", out / "s.txt").code == 0
        assert [int(row) for row in (out / "s.txt").read_text().split()] == kept[2:].tolist()
        assert cli("encode", run, given, "-o", out / "e.csv", within=out).code == 0
        if "star" in formats:
            exported = open_source(out / "particles.star", datadir=tmp_path)
            before = open_source(given).subset(kept)
            rows = np.arange(len(kept))
            np.testing.assert_array_equal(exported.stack.read(rows), before.stack.read(rows))
            assert exported.pixel_size == before.pixel_size == 12
            text = (out / "particles.star").read_text()
            assert ("# version 30001" in text) == ("data_optics" in text) == (name != "star-3.0")
        select = cli("select", run, "--where", "index >= 2", "-o", out / "s.cs", within=out)
        assert (select.code == 0) == (name == "cs")
        if name == "cs":
            with (out / "s.cs").open("rb") as raw:
                left = np.load(raw, allow_pickle=False)
            np.testing.assert_array_equal(left, records(12)[kept[2:]])
            assert left.dtype == records(12).dtype
        select = cli("select", run, "--where", "index >= 2", "-o", out / "s.star", within=out)
        assert (select.code == 0) == (name == "star-3.0")
        if name == "star-3.0":
            assert "# version" not in (out / "s.star").read_text()


# --- data that have changed since the fit -----------------------------------------------------


def test_a_re_ordered_table_is_followed_by_every_verb(
    small: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    run, star = small
    there = tmp_path / "moved"
    there.mkdir()
    (there / "particles.mrcs").symlink_to(star.with_name("particles.mrcs"))
    blocks = starfile.read(star, always_dict=True)
    order = np.random.default_rng(1).permutation(14)
    blocks["particles"] = blocks["particles"].iloc[order].reset_index(drop=True)
    starfile.write(blocks, there / "particles.star", float_format="%.17g")
    for name, extra in (("as_was", []), ("moved", ["--input", there / "particles.star"])):
        out = tmp_path / name
        assert cli("export", run, "-o", out / "e.star", *extra).code == 0
        assert cli("select", run, "--where", "index < 5", "-o", out / "s.star", *extra).code == 0
        assert cli("select", run, "--where", "index < 5", "-o", out / "s.txt", *extra).code == 0
    for name in ("e.star", "s.star"):
        as_was, moved = (
            starfile.read(tmp_path / folder / name, always_dict=True)["particles"]
            for folder in ("as_was", "moved")
        )
        key = "rlnImageName"
        pd.testing.assert_frame_equal(
            as_was.sort_values(key, ignore_index=True),
            moved.sort_values(key, ignore_index=True),
            check_dtype=False,
        )
    rows = [int(row) for row in (tmp_path / "moved" / "s.txt").read_text().split()]
    assert sorted(order[rows]) == [0, 1, 2, 3, 4]


def test_other_images_are_refused_by_every_verb(
    small: tuple[Path, Path], data: Path, cli: Cli, tmp_path: Path
) -> None:
    run, star = small
    blocks = starfile.read(star, always_dict=True)
    with mrcfile.open(star.with_name("particles.mrcs")) as file:
        images, size = file.data.copy(), file.voxel_size.copy()
    with mrcfile.new(tmp_path / "particles.mrcs") as file:
        file.set_data(images[::-1].copy())
        file.voxel_size = size
    starfile.write(blocks, tmp_path / "particles.star", float_format="%.17g")
    extra = ["--input", tmp_path / "particles.star"]
    before = files(run)
    for arguments in (
        ["export", run, "-o", tmp_path / "e.star"],
        ["select", run, "--where", "index < 5", "-o", tmp_path / "s.star"],
        ["report", run],
        ["score", run, "--maps", data / "posed" / "maps"],
        ["resume", run, "--epochs", 2],
    ):
        answer = cli(*arguments, *extra, within=tmp_path)
        assert answer.code == 2, arguments
    assert files(run) == before


# --- nothing is lost --------------------------------------------------------------------------


@pytest.fixture
def small(data: Path, cli: Cli) -> tuple[Path, Path]:
    """A run of posed particles, which can be exported and drawn, and its input."""
    if not (data / "runs" / "evil-twin-large").exists():
        fitted("evil-twin-large", data, cli)
    return data / "runs" / "evil-twin-large", data / "posed" / "particles.star"


def test_no_verb_replaces_its_input(
    small: tuple[Path, Path], data: Path, cli: Cli, tmp_path: Path
) -> None:
    run, star = small
    stack = star.with_name("particles.mrcs")
    (tmp_path / "hard.star").hardlink_to(star)
    (tmp_path / "soft.star").symlink_to(star)
    (tmp_path / "latents.csv").write_text("mine")
    latents = run / "latents.parquet"
    where = ["--where", "index < 3"]
    for arguments in (
        ["export", run, "-o", star],
        ["export", run, "-o", star.parent, "--format", "star"],
        ["export", run, "-o", tmp_path / "hard.star"],
        ["select", run, *where, "-o", star],
        ["select", run, *where, "-o", tmp_path / "soft.star"],
        ["encode", run, star, "-o", latents],
        ["map", run, star, "-o", latents],
        ["simulate", "projections", "-o", star.parent, "--poses", star, "--images", 14],
        ["fsc", data / "posed" / "maps" / "maps.csv", star, "-o", star.parent / "maps/maps.csv"],
        ["affinity", tmp_path / "latents.csv", "-o", tmp_path / "latents.csv"],
    ):
        answer = cli(*arguments, "--overwrite", within=data)
        assert answer.code == 2, arguments
        assert "is an input" in answer.err, arguments
    assert stack.is_file()


def test_a_run_is_no_input(small: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    run, _ = small
    for arguments in (["fit", run, "-o", tmp_path / "x"],
                      ["encode", run, run, "-o", tmp_path / "x.csv"]):  # fmt: skip
        answer = cli(*arguments, within=tmp_path)
        assert answer.code == 2
        assert "this is the folder of a run" in answer.err
    cli("volumes", run, "--along", 1, "--steps", 2, "-o", tmp_path / "v")
    (tmp_path / "corners.txt").write_text("0,0\n1,0\n1,1\n")
    corners = tmp_path / "corners.txt"
    for arguments in (
        ["volumes", run, "--at", tmp_path / "v" / "content.csv", "-o", tmp_path / "v"],
        ["select", run, "--region", corners, "-o", corners],
    ):
        answer = cli(*arguments, "--overwrite", within=tmp_path)
        assert "is an input" in answer.err


def test_a_check_never_replaces_its_input(data: Path, cli: Cli, tmp_path: Path) -> None:
    star = data / "posed" / "particles.star"
    cli("backproject", star, "-o", tmp_path / "made", "--no-check")
    (tmp_path / "made" / "map.mrc").unlink()
    (tmp_path / "made" / "map.mrc").hardlink_to(star.with_name("particles.mrcs"))
    answer = cli("backproject", star, "-o", tmp_path / "made", "--overwrite", within=data)
    assert "is an input" in answer.err


def test_a_verb_that_fails_midway_writes_nothing(
    small: tuple[Path, Path], data: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the second file on."""
    run, star = small
    (tmp_path / "at.csv").write_text("0,0,0,0,0,0,0,0\n" * 3)
    written = []
    sync = os.fsync

    def full_at_second(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) % 2 == 0:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_second)
    for arguments in (
        ["volumes", run, "--at", tmp_path / "at.csv"],
        ["backproject", star, "--no-check"],
        ["simulate", "particles", "--images", 3, "--box", 16, "--pixel-size", 12],
        ["simulate", "projections", "--images", 3, "--box", 16, "--pixel-size", 12],
        ["simulate", "subtomograms", "--volumes", 3, "--box", 16, "--pixel-size", 12],
    ):
        written.clear()
        answer = cli(*arguments, "-o", tmp_path / "new" / "out", within=tmp_path)
        assert answer.code == 2, arguments
        assert "No space left on device" in answer.err
        assert not (tmp_path / "new").exists()


def test_a_model_without_content_has_no_stops(data: Path, cli: Cli, tmp_path: Path) -> None:
    config = smaller(yaml.safe_load(dump_config(resolve(recipe_config("3d-spvae")))))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    run, star = tmp_path / "run", data / "volumes" / "particles.star"
    cli("fit", star, "-o", run, "--config", tmp_path / "small.yaml", "--recipe", "3d-spvae",
        "--z-dim", 0)  # fmt: skip
    for stop in (["--cluster", 2], ["--along", 1], ["--path", "0..1"], ["--at", star]):
        answer = cli("volumes", run, "-o", tmp_path / "out", *stop, within=tmp_path)
        assert answer.code == 2
        assert "no content" in answer.err
    assert cli("export", run, "-o", tmp_path / "exported").code == 0
    source = data / "posed" / "particles.star"
    answer = cli("fit", source, "-o", tmp_path / "none", "--recipe", "cryodrgn", "--z-dim", 0)
    assert answer.code == 2
    assert "model.z_dim is 0, expected 1 or more" in answer.err
