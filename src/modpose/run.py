"""The run folder: everything about one fit, in plain files that cannot run code."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.config import Config, dump_config, parse_config, read_yaml
from modpose.data.files import replace_atomically
from modpose.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from modpose.affinity.known import KnownAffinity
    from modpose.data.dataset import Dataset
    from modpose.model import PoseModel

CONTENTS = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "latents.parquet",
    "affinity.csv",
    "sample_affinity.npy",
    "checkpoints",
    "report",
)


@dataclass(frozen=True)
class Run:
    """A folder with ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``checkpoints/``.

    Once training is over also ``latents.parquet``, and ``report/`` once it is asked for.
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open an existing run folder.

        Raises
        ------
        InputError
            If it is not one.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise InputError(f"{path}: no such run folder")
        for name in ("config.yaml", "environment.json"):
            if not (run.path / name).is_file():
                raise InputError(f"{path}: not a modpose run folder (it has no {name})")
        return run

    @classmethod
    def create(
        cls, path: str | Path, config: Config, environment: dict[str, Any], overwrite: bool = False
    ) -> Run:
        """Start a run folder; a folder that holds anything else is never touched.

        Raises
        ------
        InputError
            If there is a run already and ``overwrite`` is not set, or something that is no run.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: a file stands where the run folder should go")
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / "config.yaml").is_file():
                raise InputError(f"{folder}: the folder is not empty and is no modpose run")
            if not overwrite:
                raise InputError(
                    f"{folder}: there is a run here already; give another -o, or --overwrite to "
                    "replace it, or --resume to go on with it"
                )
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder)
        run._clear()
        (folder / "checkpoints").mkdir()
        run._write("config.yaml", dump_config(config))
        run._write("environment.json", json.dumps(environment, indent=2) + "\n")
        return run

    @cached_property
    def config(self) -> Config:
        """The complete configuration."""
        path = self.path / "config.yaml"
        return parse_config(read_yaml(path), str(path))

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, seed, data, and how the run ended."""
        path = self.path / "environment.json"
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError):
            raise InputError(f"{path}: not readable as JSON") from None
        if not isinstance(values, dict):
            raise InputError.of(path, "the file", type(values).__name__, "a JSON object")
        return values

    def update_environment(self, **values: object) -> None:
        """Add to ``environment.json`` in one step."""
        self._write("environment.json", json.dumps(self.environment | values, indent=2) + "\n")

    def discard(self) -> None:
        """Remove what a run that never came to be has written, and the folder if it is empty."""
        self._clear()
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _clear(self) -> None:
        for name in CONTENTS:
            old = self.path / name
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)

    def reconfigured(self, config: Config) -> Run:
        """Write another configuration in place of the present one."""
        self._write("config.yaml", dump_config(config))
        return Run(self.path)

    @property
    def begun(self) -> bool:
        """Whether an epoch has been completed."""
        return (self.path / "metrics.jsonl").is_file()

    @property
    def finished(self) -> bool:
        """Whether training has ended and the latents are written."""
        return (self.path / "latents.parquet").is_file()

    def metrics(self) -> pd.DataFrame:
        """One row an epoch."""
        import pandas as pd

        return pd.DataFrame(self.epochs())

    def epochs(self) -> list[dict[str, float]]:
        """Metrics, one mapping an epoch."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            raise InputError(f"{path}: the run has no finished epoch yet")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        """Replace ``metrics.jsonl`` in one step."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        self._write("metrics.jsonl", text)

    def latents(self) -> pd.DataFrame:
        """One row an image, in input order."""
        import pandas as pd

        path = self.path / "latents.parquet"
        if not path.is_file():
            raise InputError(
                f"{self.path}: the run is not finished (no latents.parquet); "
                f"continue it with: modpose fit --resume {self.path}"
            )
        return pd.read_parquet(path)

    def content(self) -> NDArray[np.float64]:
        """Posterior means of content, (N, z_dim), from ``latents.parquet``."""
        return self.latents()[[f"z_{k}" for k in range(self.config.model.z_dim)]].to_numpy(float)

    def write_latents(self, table: pd.DataFrame) -> None:
        """Write ``latents.parquet`` in one step."""
        replace_atomically(self.path / "latents.parquet", table.to_parquet, overwrite=True)

    def dataset(self) -> Dataset:
        """The images that the run was fitted to, opened again from where they were."""
        from modpose.data.dataset import dataset_of
        from modpose.data.source import open_source

        environment = self.environment
        if environment.get("input") is None:
            raise InputError(
                f"{self.path}: the run was fitted to an array in memory, which is not in the folder"
            )
        files = {
            name: Path(environment[name])
            for name in ("datadir", "index", "poses", "ctf")
            if environment.get(name) is not None
        }
        source = open_source(environment["input"], kind=self.config.data.kind, **files)
        return dataset_of(source, self.config, affinity=self.known_affinity())

    def known_affinity(self) -> KnownAffinity | None:
        """Affinities of the images that the run is trained on; None where there are none."""
        from modpose.affinity.known import load_known

        if not self.config.train.gamma.used:
            return None
        environment = self.environment
        known = load_known(self.path, environment.get("labels"), environment["n"])
        return known if known.any else None

    def model(self) -> PoseModel:
        """The trained model."""
        from modpose.model import PoseModel

        return PoseModel.load(self.path)

    def _write(self, name: str, text: str) -> None:
        content = text.encode()
        replace_atomically(self.path / name, lambda file: file.write(content), overwrite=True)
