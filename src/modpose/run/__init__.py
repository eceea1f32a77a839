"""The run folder: everything about one fit, in plain files that cannot run code."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.config import Config, dump_config, parse_config, read_yaml
from modpose.data.record import Record, described, record_of
from modpose.errors import InputError
from modpose.files.locks import writing
from modpose.files.text import in_shell
from modpose.files.writing import replace_atomically
from modpose.run import files as run_files
from modpose.run import folder as run_folder
from modpose.run.added import joined, read_added
from modpose.run.alarm import stored_alarms
from modpose.run.describe import describe

if TYPE_CHECKING:
    import pandas as pd

    from modpose.affinity.known import KnownAffinity
    from modpose.data.dataset import Dataset
    from modpose.data.inspect import Description
    from modpose.data.record import Record
    from modpose.run.alarm import Alarm
    from modpose.run.reopen import Given

logger = logging.getLogger("modpose")


@dataclass(frozen=True)
class Run:
    """A folder with ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``checkpoints/``.

    After training also ``latents.parquet``, and after ``modpose report`` also ``report/``.

    Attributes
    ----------
    path
        The folder.
    input, datadir
        Where the images are now, if they have moved since the fit; see :meth:`dataset`.
    """

    path: Path
    input: Given = field(default=None, repr=False, compare=False)
    datadir: Path | None = field(default=None, repr=False, compare=False)

    def describe(self) -> Description:
        """Describe the run: recipe, images, epochs, whether it is finished, alarms."""
        return describe(self)

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        input: Given = None,
        datadir: str | Path | None = None,
    ) -> Run:
        """Open an existing run folder.

        Parameters
        ----------
        path
            The folder.
        input, datadir
            Where the images are now, if they have moved since the fit; see :meth:`dataset`.

        Raises
        ------
        InputError
            If it is not a run folder, or is one of a newer version of modpose.
        """
        run = cls(Path(path), input, None if datadir is None else Path(datadir))
        if not run.path.is_dir():
            raise InputError(f"{path}: no such run folder")
        run_folder.finish_replacing(run.path)
        run_folder.read_marker(run.path)
        for name in ("config.yaml", "environment.json"):
            if not (run.path / name).is_file():
                raise InputError(f"{path}: not a modpose run folder (it has no {name})")
        return run

    @classmethod
    @contextmanager
    def begin(
        cls,
        path: str | Path,
        config: Config,
        environment: dict[str, Any],
        *,
        record: Record | None = None,
        overwrite: bool = False,
        inputs: Iterable[Path] = (),
    ) -> Iterator[Run]:
        """Make a run within this context; no other process can write to it until the end.

        Where a run is to be replaced, the new one is made in a folder inside it and moved into
        place at the end of the context.  After an error before its first epoch nothing of the new
        run is left, and the old one is what it was; what a process leaves that is interrupted or
        killed, :meth:`going_on` finds.

        Parameters
        ----------
        path
            The folder.
        config, environment
            What ``config.yaml`` and ``environment.json`` hold.
        record
            Record of the images.
        overwrite
            Replace a run that already exists; files that are not of the run stay.
        inputs
            Files and folders that are read, none of which may lie in the folder.

        Raises
        ------
        InputError
            If there is already a run and ``overwrite`` is not set, something that is not a run, or
            an input; or if another process writes to it.
        """
        folder = Path(path)
        run_folder.check_target(folder, overwrite)
        run_folder.check_not_an_input(folder, inputs)
        try:
            text = json.dumps(environment, indent=2) + "\n"
        except (TypeError, ValueError):
            expected = "numbers or text"
            raise InputError(f"{folder}: the labels cannot be saved, expected {expected}") from None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror})") from None
        try:
            with writing(folder):
                run_folder.check_target(folder, overwrite)
                run_folder.remove_leftovers(folder)
                replaces = (folder / "config.yaml").is_file()
                run = cls(run_folder.fresh_stage(folder) if replaces else folder)
                try:
                    run._write_first(config, text, record)
                    yield run
                except Exception:
                    if not run.begun:
                        run.discard()
                    raise
                if replaces:
                    run_folder.put_in_place(folder)
        finally:
            with suppress(OSError):  # only where nothing came to be
                folder.rmdir()

    @classmethod
    @contextmanager
    def going_on(cls, path: str | Path) -> Iterator[Run]:
        """Continue a run within this context; no other process can write to it until the end.

        An interrupted run is continued in place.  If a fit that should replace this run was
        interrupted, that fit is continued.  A finished run does not change until the end of the
        context; then the longer run replaces it.
        """
        opened = cls.open(path)
        folder = opened.path
        with writing(folder):
            run_folder.remove_leftovers(folder)
            place, copied = run_folder.staged(folder), False
            if place is not None:
                logger.info("%s: continuing the interrupted fit that will replace it", folder)
            elif opened.finished:
                place, copied = run_folder.stage_copy(folder), True
            run = cls(place or folder)
            if run_folder.read_marker(run.path) is None:
                run_folder.write_marker(run.path, {})
            before = run.begun and len(run.epochs())
            try:
                yield run
            except Exception:
                if copied and before == len(run.epochs()):
                    shutil.rmtree(run.path, ignore_errors=True)
                raise
            if place is not None:
                run_folder.put_in_place(folder)

    def _write_first(self, config: Config, environment: str, record: Record | None) -> None:
        """Write the first files of a run; the marker first, so that the folder is recognised."""
        run_folder.write_marker(self.path, {})
        (self.path / "checkpoints").mkdir(exist_ok=True)
        if record is not None:
            replace_atomically(self.path / "rows.parquet", record.rows.to_parquet, overwrite=True)
        self._write("environment.json", environment)
        self._write("config.yaml", dump_config(config))

    @cached_property
    def config(self) -> Config:
        """The complete configuration."""
        path = self.path / "config.yaml"
        return parse_config(run_files.with_former_defaults(read_yaml(path)), str(path))

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, seed, data, and how the run ended."""
        return run_files.read_environment(self.path / "environment.json")

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What looked wrong about the images or the fit; empty where nothing did."""
        return stored_alarms(self.environment)

    def update_environment(self, **values: object) -> None:
        """Add to ``environment.json`` in one step."""
        self._write("environment.json", json.dumps(self.environment | values, indent=2) + "\n")

    def discard(self) -> None:
        """Remove the files of a run that failed to start, and the folder if it is empty."""
        run_folder.clear(self.path)
        with suppress(OSError):
            self.path.rmdir()

    def reconfigured(self, config: Config) -> Run:
        """Replace the configuration."""
        self._write("config.yaml", dump_config(config))
        return replace(self)

    @property
    def begun(self) -> bool:
        """Whether an epoch has been completed."""
        return (self.path / "metrics.jsonl").is_file()

    @property
    def finished(self) -> bool:
        """Whether training has ended and the latents of its weights are written."""
        marker = run_folder.read_marker(self.path)
        sealed = marker is None or "sha256" in marker  # version 0.1 wrote no marker
        return sealed and (self.path / "latents.parquet").is_file()

    def metrics(self) -> pd.DataFrame:
        """One row per epoch."""
        import pandas as pd

        return pd.DataFrame(self.epochs())

    def epochs(self) -> list[dict[str, float]]:
        """Metrics, one mapping an epoch."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            raise InputError(f"{path}: the run has no finished epoch yet")
        return run_files.read_metrics(path)

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        """Replace ``metrics.jsonl`` in one step."""
        self._write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    @property
    def partial(self) -> bool:
        """Whether only a sample of the images is encoded, because the fit was short."""
        return self.finished and self.environment.get("encoded") is not None

    def latents(self, *, partial: bool = False) -> pd.DataFrame:
        """One row per image, in input order, with the columns added since (``added.parquet``).

        Parameters
        ----------
        partial
            Of a :attr:`partial` run, return the images that are encoded; their positions are in
            the column ``index``.

        Raises
        ------
        InputError
            If the run is not finished, a file is damaged, or only a sample is encoded.
        """
        path = self.path / "latents.parquet"
        if not self.finished:
            raise InputError(
                f"{self.path}: the run is not finished (no latents.parquet); "
                f"continue it with: modpose fit --resume {in_shell(self.path)}"
            )
        self.check()
        table = run_folder.read_table(path)
        n, encoded = (self.environment.get(name) for name in ("n", "encoded"))
        if encoded is not None and len(table) == encoded and not partial:
            raise InputError(
                f"{self.path}: only {encoded:,} of {n:,} images are encoded, because the fit was "
                f"short; encode the rest with: modpose resume {in_shell(self.path)}"
            )
        known = encoded if partial and len(table) == encoded else n
        run_files.check_latents(path, table, self.config.model.z_dim, known)
        added = read_added(self.path)
        return table if added is None else joined(table, added)

    def check(self) -> None:
        """Check weights and latents against the checksums of the fit, once.

        Raises
        ------
        InputError
            If one of them is damaged or belongs to another run.
        """
        if not self.__dict__.get("_checked"):
            run_folder.check_sums(self.path)
            self.__dict__["_checked"] = True

    def content(self) -> NDArray[np.float64]:
        """Posterior means of content, (N, z_dim), from ``latents.parquet``."""
        names = [f"z_{k}" for k in range(self.config.model.z_dim)]
        return self.latents()[names].to_numpy(float)

    def content_in_errors(self) -> NDArray[np.float64]:
        """Content, (N, z_dim), each dimension in units of its median posterior deviation."""
        z, latents = self.content().copy(), self.latents()
        for k in range(z.shape[1]):
            error = float(latents[f"z_{k}_std"].median()) if f"z_{k}_std" in latents else 0.0
            z[:, k] /= error if error > 0 else 1.0
        return z

    def write_latents(self, table: pd.DataFrame) -> None:
        """Write ``latents.parquet`` in one step, and mark the run as finished."""
        replace_atomically(self.path / "latents.parquet", table.to_parquet, overwrite=True)
        run_folder.seal(self.path)
        self.__dict__.pop("_checked", None)

    def record(self) -> Record | None:
        """The run's record of its images; None in a run of version 0.1."""
        path, about = self.path / "rows.parquet", self.environment.get("data")
        if not isinstance(about, dict):
            return None
        if not path.is_file():
            raise InputError(f"{path}: the file is missing, expected what the fit wrote")
        self.check()
        return Record.of(run_folder.read_table(path), about, path)

    def remember(self, dataset: Dataset) -> None:
        """Record the images of a run of version 0.1, or with the poses that were found for them."""
        before = self.record()
        record = record_of(dataset, None if before is None else before.about.get("labels"))
        replace_atomically(self.path / "rows.parquet", record.rows.to_parquet, overwrite=True)
        self.update_environment(**described(record, dataset.source))

    def dataset(
        self,
        input: Given = None,
        *,
        datadir: str | Path | None = None,
    ) -> Dataset:
        """The images that the run was fitted to, opened again, in the order of the run.

        Parameters
        ----------
        input
            Where they are now: what :func:`modpose.data.source.open_source` takes; None for where
            the run was opened with them, else where they were.
        datadir
            Folder that image paths inside a table start from; None also.

        Raises
        ------
        InputError
            If they are gone, or are not those of the fit: the sentence says what changed.
        """
        from modpose.run.reopen import reopened

        here = self.input if input is None else input
        folder = self.datadir if datadir is None else Path(datadir)
        return reopened(self, here, folder)

    @property
    def has_images(self) -> bool:
        """Whether the images can be opened again; an array in memory cannot."""
        return self.input is not None or self.environment.get("input") is not None

    def known_affinity(self) -> KnownAffinity | None:
        """Affinities of the images that the run is trained on; None if there are none."""
        from modpose.affinity.known import load_known

        if not self.config.train.gamma.used:
            return None
        environment = self.environment
        known = load_known(self.path, environment.get("labels"), environment["n"])
        return known if known.any else None

    def _write(self, name: str, text: str) -> None:
        content = text.encode()
        replace_atomically(self.path / name, lambda file: file.write(content), overwrite=True)
