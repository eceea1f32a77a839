"""Formats of text that are no tables of particles: options, run files, coordinates, lists."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modpose.affinity.files import read_affinity
from modpose.config import dump_config, parse_config
from modpose.config.yaml_text import read_yaml
from modpose.data.csv_reader import read_csv_table
from modpose.data.index import select_rows
from modpose.data.labels import read_labels
from modpose.data.particles import Particles
from modpose.data.source import open_source
from modpose.data.wedges import tilt_ranges
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.options import resolve
from modpose.outputs.select import in_region
from modpose.outputs.volumes import at_file
from modpose.recipes import recipe_config
from modpose.report.summary import facts
from modpose.run import Run
from modpose.simulate.atoms import read_atom_table
from tests.fuzz.judge import Format, Seed
from tests.fuzz.tables import columns, plain

RUNS = Path(__file__).parents[1] / "stored_runs"
WORDS = (b",", b"\n", b'"', b" ", b"\t", b";", b"-", b".", b"nan", b"1e5", b"\xc3\xa9", b"\r\n")


# --- lists --------------------------------------------------------------------------------------


def _labels(path: Path) -> Any:
    return [str(v) for v in read_labels(path, open_source(np.zeros((4, 4, 4), np.float32)))]


def _theirs_labels(path: Path) -> Any:
    """Read one label per line, or a line of labels; whole numbers without decimals."""
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if all(line[0] == line[-1] == '"' and len(line) > 1 for line in lines):
        lines = [row[0].strip() for row in csv.reader(lines)]
    elif len(lines) == 1:
        lines = lines[0].replace(",", " ").replace(";", " ").split()
    try:
        numbers = [float(v) if "_" not in v and v.isascii() else np.nan for v in lines]
    except ValueError:
        return lines
    if not np.isfinite(numbers).all():
        return lines
    pairs = zip(lines, numbers, strict=True)
    return [str(int(x)) if "." in v and x.is_integer() else v for v, x in pairs]


def _index(path: Path) -> Any:
    return select_rows(path, Particles(pd.DataFrame(index=range(9)))).tolist()


def _theirs_index(path: Path) -> Any:
    words = path.read_bytes().decode("utf-8-sig").replace(",", " ").replace(";", " ").split()
    return [int(word) for word in words[0 if words[0][0] in "-0123456789" else 1 :]]


def _table(path: Path) -> Any:
    return columns(read_csv_table(path))


def _theirs_table(path: Path) -> Any:
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    missing = {"": "missing", **dict.fromkeys(("NA", "nan", "NaN", "null", "None"), "missing")}
    values = list(zip(*[[missing.get(v, v) for v in row] for row in rows[1:]], strict=True))
    values = values or [()] * len(rows[0])
    return {k.strip(): [plain(v) for v in c] for k, c in zip(rows[0], values, strict=True)}


# --- options and runs -----------------------------------------------------------------------------


def _options(path: Path) -> Any:
    values = read_yaml(path)
    resolve(recipe_config("modpose"), file=path)
    return _flat(parse_config(values, str(path)).model_dump(mode="json"))


def _theirs_options(path: Path) -> Any:
    import yaml

    text = path.read_bytes().decode("utf-8-sig")
    return _flat(parse_config(yaml.safe_load(text), str(path)).model_dump(mode="json"))


def _flat(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _run_beside(name: str) -> Any:
    def prepare(folder: Path) -> None:
        shutil.copytree(RUNS / name, folder / "run", dirs_exist_ok=True)

    return prepare


def _run(path: Path) -> None:
    run = Run.open(path.parent)
    assert run.config.recipe
    run.metrics()
    run.latents()
    run.content()
    run.known_affinity()
    assert isinstance(run.alarms, tuple)
    try:
        PoseModel.load(run.path)
    except InputError as error:  # some of what is wrong with options is said of the recipe
        raise InputError(f"{path.name}: {error}") from None
    dump_config(run.config)
    curves = {name: run.metrics()[name].to_numpy() for name in run.metrics()}
    assert facts(run.config, run.environment, curves, {"train": 1})


def _affinity(path: Path) -> Any:
    found = read_affinity(path)
    return [list(found.names), [[plain(v) for v in row] for row in found.values.tolist()]]


def _theirs_affinity(path: Path) -> Any:
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    rows = [r for r in csv.reader(text.split("\n")) if any(c.strip() for c in r)]
    names = [cell.strip() for cell in rows[0]]
    named = names[0] == ""
    return [names[named:], [[plain(float(c)) for c in row[named:]] for row in rows[1:]]]


# --- coordinates, content, tilts ------------------------------------------------------------------


def _atoms(path: Path) -> Any:
    table = read_atom_table(path)
    return sorted([plain(v) for v in row] for row in table.positions.tolist())


def _theirs_pdb(path: Path) -> Any:
    """Read columns 31-54 of the heavy atoms of the first model."""
    rows = []
    for line in path.read_bytes().decode("latin-1").split("\n"):
        if line.startswith("ENDMDL") or line.rstrip() == "END":
            break
        atom = line.startswith(("ATOM  ", "HETATM")) and line[17:20] != "HOH"
        if atom and not (line[54:60].strip() and float(line[54:60]) == 0):
            rows.append([plain(float(line[i : i + 8])) for i in (30, 38, 46)])
    return sorted(rows)


def _region(path: Path) -> Any:
    table = pd.DataFrame({"z_0": [0.5, 2.0], "z_1": [0.5, 0.5]})
    return in_region(table, str(path)).tolist()


def _at(path: Path) -> Any:
    return [[plain(v) for v in row] for row in at_file(path, 2).z.tolist()]


def _theirs_at(path: Path) -> Any:
    text = path.read_bytes().decode("utf-8-sig").replace(",", " ").replace(";", " ")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.split() for line in text.split("\n") if line.split()]
    return [[plain(float(v)) for v in line] for line in lines[_named(lines[0]) :]]


def _named(words: list[str]) -> bool:
    try:
        return not [float(word) for word in words]
    except ValueError:
        return True


def _tilts(path: Path) -> None:
    table = pd.DataFrame({"rlnTomoName": ["t1", "t2"], "rlnImageName": ["1@a.mrcs", "2@a.mrcs"]})
    tilt_ranges(Particles(table, None, "star", "p.star"), path)


def atom(serial: int, name: str, residue: str, x: float, y: float, z: float) -> str:
    """Write an atom as a line of a PDB file."""
    element = name[0]
    return (
        f"ATOM  {serial:5d}  {name:<3} {residue} A{serial:4d}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00           {element}  \n"
    )


PDB = "".join(atom(i, "CA", "ALA", 3.8 * i, i % 3, -i) for i in range(1, 9)) + "TER\nEND\n"
CIF = "data_X\n#\nloop_\n" + "".join(
    f"_atom_site.{name}\n"
    for name in (
        *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id"),
        *("label_asym_id", "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x"),
        *("Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id", "auth_asym_id"),
        "pdbx_PDB_model_num",
    )
)
CIF += "".join(
    f"ATOM {i} C CA . ALA A 1 {i} ? {3.8 * i:.3f} {i % 3}.0 -{i}.0 1.00 10.0 {i} A 1\n"
    for i in range(1, 9)
)
TOMOGRAMS = "data_global\n\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\nt1 300\nt2 300\n\n" + "".join(
    f"data_{name}\n\nloop_\n_rlnTomoProjX #1\n_rlnTomoProjY #2\n_rlnTomoProjZ #3\n"
    + "".join(
        f"[{c},0,{-s},5] [0,1,0,5] [{s},0,{c},0]\n" for s, c in ((0.6, 0.8), (0, 1), (-0.6, 0.8))
    )
    + "\n"
    for name in ("t1", "t2")
)


def formats() -> list[Format]:
    """Return the formats of options, run files, coordinates and lists."""
    options = dump_config(resolve(recipe_config("modpose"))).encode()
    small = b"recipe: modpose\nseed: 3\ntrain:\n  lr: 1.0e-3\n  epochs: 20\nmodel: {z_dim: 3}\n"
    yaml = (
        b"&a",
        b"*a",
        b"!!python",
        b"[",
        b"{",
        b": ",
        b"true",
        b"off",
        b"null",
        b"epochs",
        b"kind",
    )
    runs = []
    for name, run, file in (
        ("run-environment", "vae", "environment.json"),
        ("run-labels", "affinity-vae", "environment.json"),
        ("run-config", "vae", "config.yaml"),
        ("run-metrics", "vae", "metrics.jsonl"),
        ("run-affinity", "affinity-vae", "affinity.csv"),
    ):
        seed = Seed((RUNS / run / file).read_bytes())
        words = (b"null", b"true", b"{}", b"[]", b'"a"', b"NaN", b"1e400", b"\\ud800", *yaml)
        runs.append(Format(name, f"run/{file}", [seed], _run, None, words, _run_beside(run)))
    matrix = b",p,q,r\np,1.0,0.5,0.25\nq,0.5,1.0,-0.125\nr,0.25,-0.125,1.0\n"
    bare = b"p,q\n1.0,0.5\n0.5,1.0\n"
    csvs = [b"image,x,label\na.png,1.5,k\nb.png,-2,l\nc.png,3e2,m\n", b'a,b\n"x, y",1\n"z",2\n']
    return [
        Format(
            *(
                "labels",
                "x.txt",
                [Seed(b"c\nd e\nc\nf\n"), Seed(b"0\n1\n1.0\n2\n"), Seed(b"0 1 1 0")],
            ),
            *(_labels, _theirs_labels, WORDS),
        ),
        Format(
            *("index", "x.txt", [Seed(b"0\n3\n8\n"), Seed(b"row\n1\n2\n"), Seed(b"0,1, 2")]),
            *(_index, _theirs_index, WORDS),
        ),
        Format("csv", "x.csv", [Seed(c) for c in csvs], _table, _theirs_table, WORDS),
        Format("options", "x.yaml", [Seed(options), Seed(small)], _options, _theirs_options, yaml),
        *runs,
        Format(
            *("affinity", "x.csv", [Seed(matrix), Seed(bare)], _affinity, _theirs_affinity, WORDS),
        ),
        Format("pdb", "x.pdb", [Seed(PDB.encode())], _atoms, _theirs_pdb, (b"ATOM  ", b"HETATM")),
        Format("cif", "x.cif", [Seed(CIF.encode())], _atoms, None, (b"_atom_site.", b"?")),
        Format(
            *(
                "region",
                "x.csv",
                [Seed(b"z_0,z_1\n0,0\n1,0\n1,1\n0,1\n"), Seed(b"0,0\n1,0\n0,2\n")],
            ),
            *(_region, None, WORDS),
        ),
        Format(
            *("at", "x.csv", [Seed(b"z_0,z_1\n0.5,1\n-1,2e-1\n"), Seed(b"1 2\n3 4\n")]),
            *(_at, _theirs_at, WORDS),
        ),
        Format("tilts", "x.star", [Seed(TOMOGRAMS.encode())], _tilts, None, (b"[", b"]", b",")),
    ]
