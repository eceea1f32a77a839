"""Small files of our own, under the names that the real data sets have in ``../shared/data``.

So what is tested on real files is also tested where there are none.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from modpose.data.mrc import write_mrcs
from modpose.data.star import write_star
from modpose.simulate.digits import glyphs, transform
from modpose.simulate.molecules import density
from studies.target_vae.molecule_views import barrel
from studies.target_vae.shapes import SHAPES, draw_sprites
from tests.small_star_files import STAR_FILES

TILT_STACKS = "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
TILTS_DEG = (-57.0, -30.0, 0.0, 31.0, 58.0)


def write_small_data(folder: Path) -> None:
    """Write every small file into an empty folder."""
    for part in ("star", "mrc", "cs", "spa", "tomo", "pdb", "galaxy", "dsprites", "affinity"):
        (folder / part).mkdir()
    for name, text in STAR_FILES.items():
        (folder / "star" / f"{name}.star").write_text(text)
    _maps(folder / "mrc")
    _seven_particles(folder / "spa")
    _shells(folder / "spa")
    _tilt_stacks(folder / "tomo")
    _molecules(folder / "pdb")
    _pictures(folder)
    _affinities(folder / "affinity")
    _refined(folder / "cs")


def _maps(folder: Path) -> None:
    """A header alone, and a header of another type than the pixels have."""
    write_mrcs(folder / "whole.mrc", np.zeros((4, 5, 6), np.float32), 1.0)
    written = (folder / "whole.mrc").read_bytes()
    header = bytearray(written[:1024])
    header[208:212] = bytes(4)  # no word MAP
    (folder / "malformed_header_only.mrc").write_bytes(header)
    other = bytearray(written)
    other[12:16] = bytes(4)  # mode 0, one byte per pixel, before four bytes per pixel
    (folder / "malformed_mode_mismatch.mrc").write_bytes(other)


def cryosparc_table(n: int, path: str, box: int) -> np.ndarray:
    """Make records with the fields of a cryoSPARC refinement, at 1.31 Å per pixel."""
    rng = np.random.default_rng(3)
    fields: dict[str, object] = {
        "uid": rng.permutation(n).astype("u8") + 7,
        "blob/path": np.full(n, path.encode(), "S40"),
        "blob/idx": np.arange(n, dtype="u4"),
        "blob/shape": np.full((n, 2), box, "u4"),
        "blob/psize_A": np.full(n, 1.31, "f4"),
        "alignments3D/pose": rng.normal(size=(n, 3)).astype("f4"),
        "alignments3D/shift": rng.normal(size=(n, 2)).astype("f4"),
        "alignments3D/psize_A": np.full(n, 1.31, "f4"),
        "ctf/accel_kv": np.full(n, 300.0, "f4"),
        "ctf/cs_mm": np.full(n, 2.7, "f4"),
        "ctf/amp_contrast": np.full(n, 0.1, "f4"),
        "ctf/df1_A": rng.uniform(12000, 20000, n).astype("f4"),
        "ctf/df2_A": rng.uniform(12000, 20000, n).astype("f4"),
        "ctf/df_angle_rad": rng.uniform(0, 3, n).astype("f4"),
        "ctf/phase_shift_rad": np.zeros(n, "f4"),
    }
    arrays = {name: np.asarray(value) for name, value in fields.items()}
    records = np.zeros(n, [(name, a.dtype, a.shape[1:]) for name, a in arrays.items()])
    for name, array in arrays.items():
        records[name] = array
    return records


def _refined(folder: Path) -> None:
    """A refined table and what cryoDRGN parses of it: poses, CTF."""
    box = 180
    table = cryosparc_table(12, "J24/extract/gone.mrc", box)
    with (folder / "cryosparc_P12_J24_001_particles.cs").open("wb") as file:
        np.save(file, table)
    rotation = Rotation.from_rotvec(table["alignments3D/pose"]).as_matrix().astype("f4")
    poses = rotation.transpose(0, 2, 1), table["alignments3D/shift"] / np.float32(box)
    (folder / "pose.cs.pkl").write_bytes(pickle.dumps(poses))
    fields = ("df1_A", "df2_A", "df_angle_rad", "accel_kv", "cs_mm", "amp_contrast")
    columns = [np.full(12, box), table["blob/psize_A"], *(table[f"ctf/{name}"] for name in fields)]
    columns.append(np.rad2deg(table["ctf/phase_shift_rad"]))
    ctf = np.stack(columns, 1).astype("f4")
    ctf[:, 4] = np.rad2deg(ctf[:, 4])
    (folder / "ctf2.pkl").write_bytes(pickle.dumps(ctf))


def _seven_particles(folder: Path) -> None:
    """The same particles, with a CTF and without poses, as STAR and as .cs."""
    images = np.random.default_rng(0).normal(size=(7, 320, 320)).astype(np.float32)
    write_mrcs(folder / "empiar_10076_7.mrc", images, None)
    records = cryosparc_table(7, "empiar_10076_7.mrc", 320)
    kept = [name for name in records.dtype.names or () if not name.startswith("alignments3D")]
    posed = np.zeros(7, [(name, records.dtype[name]) for name in kept])
    for name in kept:
        posed[name] = records[name]
    with (folder / "empiar_10076_7.cs").open("wb") as file:
        np.save(file, posed)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@empiar_10076_7.mrc" for i in range(7)],
            "rlnDefocusU": records["ctf/df1_A"].astype(float),
            "rlnDefocusV": records["ctf/df2_A"].astype(float),
            "rlnDefocusAngle": np.rad2deg(records["ctf/df_angle_rad"].astype(float)),
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnPhaseShift": 0.0,
            "rlnMagnification": 10000.0,
            "rlnDetectorPixelSize": 1.31,
        }
    )
    write_star(folder / "empiar_10076_7.star", table)


def _shells(folder: Path) -> None:
    """Dark shells of 45 Å about the centre, noisy, 16-bit, at 3 Å per pixel."""
    n, side = 1367, 64
    radius = 3.0 * np.hypot(*(np.mgrid[:side, :side] - side // 2))
    shell = np.exp(-(((radius - 45.0) / 8.0) ** 2))
    noise = np.random.default_rng(1).normal(size=(n, side, side)).astype(np.float32)
    images = np.rint(1000 * noise - 2000 * shell).astype(np.int16)
    name = "apoferritin_empiar10146_64"
    with mrcfile.new(folder / f"{name}.mrcs") as mrc:
        mrc.set_data(images)
        mrc.set_image_stack()
        mrc.voxel_size = 3.0
    table = pd.DataFrame(
        {"rlnImageName": [f"{i + 1:06d}@{name}.mrcs" for i in range(n)], "rlnOpticsGroup": 1}
    )
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [3.0]})
    write_star(folder / f"{name}.star", table, optics)


def _tilt_stacks(folder: Path) -> None:
    """Subtomograms as 2-D stacks of tilts, and the tilts of their tomogram."""
    images = "\n".join(f"TS_1 {i} 1 {i}.mrcs [1,1,1,1,1]" for i in range(1, 41))
    (folder / f"{TILT_STACKS}.star").write_text(
        "data_general\n_rlnTomoSubTomosAre2DStacks 1\n\n"
        "data_optics\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n"
        "_rlnImageDimensionality #3\n1 12.0 2\n\n"
        "data_particles\nloop_\n_rlnTomoName #1\n_rlnTomoParticleId #2\n_rlnOpticsGroup #3\n"
        f"_rlnImageName #4\n_rlnTomoVisibleFrames #5\n{images}\n"
    )
    rows = []
    for angle in np.deg2rad(TILTS_DEG):
        c, s = np.cos(angle), np.sin(angle)
        matrix = [[c, 0.0, s, 0.0], [0.0, 1.0, 0.0, 0.0], [-s, 0.0, c, 0.0], [0.0, 0.0, 0.0, 1.0]]
        rows.append(" ".join("[" + ",".join(f"{v:.9f}" for v in row) + "]" for row in matrix))
    columns = "\n".join(f"_rlnTomoProj{axis} #{k}" for k, axis in enumerate("XYZW", 1))
    (folder / f"{TILT_STACKS}_tomograms.star").write_text(
        "data_global\nloop_\n_rlnTomoName #1\n_rlnTomoTiltSeriesPixelSize #2\nTS_1 3.0\n\n"
        f"data_TS_1\nloop_\n{columns}\n" + "\n".join(rows) + "\n"
    )


def _molecules(folder: Path) -> None:
    """A barrel whose second ring is written as an operator; four rods of residues as mmCIF."""
    atoms = barrel()
    half = atoms.positions[atoms.positions[:, 2] > 0] * (1.0, 1.0, 1.45)  # as long as GroEL
    operators = [
        "REMARK 350 BIOMOLECULE: 1",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
    ]
    for k, signs in enumerate(((1, 1, 1), (1, -1, -1)), 1):
        for row, sign in enumerate(signs):
            turn = "".join(f"{sign * (column == row):10.6f}" for column in range(3))
            operators.append(f"REMARK 350   BIOMT{row + 1}{k:4d}{turn}        0.00000")
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA A{i + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00           C"
        for i, (x, y, z) in enumerate(half)
    ]
    (folder / "1oel.pdb").write_text("\n".join([*operators, *lines, "END", ""]))
    names = (
        *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id"),
        *("label_asym_id", "label_entity_id", "label_seq_id", "Cartn_x", "Cartn_y", "Cartn_z"),
        *("occupancy", "B_iso_or_equiv", "auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num"),
    )
    rows, rng = [], np.random.default_rng(2)
    for k, chain in enumerate("ABCD"):
        for i, (x, y, z) in enumerate(rng.normal(0, 8, (30, 3)) + 12 * rng.normal(size=3)):
            rows.append(
                f"ATOM {30 * k + i + 1} C CA . ALA {chain} 1 {i + 1} {x:.3f} {y:.3f} "
                f"{z:.3f} 1.00 10.00 {i + 1} {chain} 1"
            )
    head = ["data_4HHB", "#", "loop_", *(f"_atom_site.{name}" for name in names)]
    (folder / "4hhb.cif").write_text("\n".join([*head, *rows, "#", ""]))


def _pictures(folder: Path) -> None:
    """Digits, sprites and spirals in archives, as many as the smallest study reads."""
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=160).astype(np.uint8)
    drawn = transform(glyphs("0123456789", 28)[labels], box=28, angle_std_deg=5.0, seed=0)[0]
    digits = np.rint(255 * drawn).astype(np.uint8)
    np.savez(
        folder / "mnist.npz",
        x_train=digits[:120], y_train=labels[:120], x_test=digits[120:], y_test=labels[120:],
    )  # fmt: skip
    n = 200
    shape = rng.integers(3, size=n)
    values = np.stack(
        [
            shape + 1,
            rng.uniform(0.5, 1.0, n),
            rng.uniform(0, 2 * np.pi, n),
            *rng.uniform(0.2, 0.8, (2, n)),
        ],
        axis=1,
    )
    assert SHAPES == ("square", "ellipse", "heart")
    shift = 32 * values[:, 3:] - 16.5
    sprites = draw_sprites(shape, values[:, 1], -np.rad2deg(values[:, 2]), shift, 64) >= 0.5
    np.savez(
        folder / "dsprites" / "dsprites_grid_46080.npz",
        imgs=sprites.astype(np.uint8),
        latents_values=values,
    )
    spirals = _spirals(160, rng)
    np.savez(
        folder / "galaxy" / "galaxy_zoo_train_64.npz",
        images=spirals,
        label=(np.arange(160) % 2).astype(np.uint8),
    )


def _affinities(folder: Path) -> None:
    """Characters and volumes in random poses, with their classes; matrices of classes."""
    names = "0123456789ABCDEFGHJKLMNPRSTUVWXYZabc"
    for name, classes in (("alphanumeric", names), ("mnist", names[:10])):
        matrix = 0.1 + 0.9 * np.eye(len(classes))
        rows = "\n".join(",".join(f"{v:.2f}" for v in row) for row in matrix)
        (folder / f"affinity_{name}.csv").write_text(",".join(classes) + "\n" + rows + "\n")
    chosen = np.arange(60) % 6
    drawn = transform(glyphs(names[:6], 64)[chosen], box=64, angle_std_deg=60.0, seed=3)[0]
    labels = np.array([f"{names[k]}_{i}" for i, k in enumerate(chosen)])
    np.savez(folder / "alphanumeric_64.npz", images=drawn.astype(np.float32), name=labels)
    rng = np.random.default_rng(4)
    volumes, classes = [], []
    for name in ("1b23", "1dfo", "1dkg", "1e3p"):
        places, masses = rng.normal(0, 26, (6, 3)), rng.uniform(0.5, 2.0, 6)
        turns = Rotation.random(6, rng=rng).as_matrix()
        many = np.broadcast_to(places, (6, 6, 3))
        volumes.append(density(many, np.full(6, 9.0), masses, turns, np.zeros((6, 3)), 64, 4.0))
        classes += [name] * 6
    whole = np.concatenate(volumes)
    np.savez(
        folder / "affinity_volumes_64.npz",
        volumes=(whole / whole.max()).astype(np.float16),
        cls=np.array(classes),
    )


def _spirals(n: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures (n, 64, 64, 3), 0 to 255: discs, every second with two arms."""
    y, x = np.mgrid[:64, :64] - 32.0
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    turn = rng.uniform(0, 2 * np.pi, n)[:, None, None]
    arms = 0.5 + 0.5 * np.cos(2 * (angle - 0.25 * radius - turn))
    arms[::2] = 0.5
    light = (0.3 + 0.7 * arms) * np.exp(-radius / 12)
    colours = np.array([1.0, 0.8, 0.6])
    return np.rint(255 * light[..., None] * colours).astype(np.uint8)
