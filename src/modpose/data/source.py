"""Opening a user's files or arrays as a stack with its table of particles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from modpose.data.opened import Source as Source
from modpose.data.opened import Wedge as Wedge
from modpose.data.opened import source_of as source_of
from modpose.data.stack import Kind, Stack
from modpose.data.tilt_series import opened_tilts
from modpose.data.unopened import Input, Unopened, read_input
from modpose.errors import InputError

if TYPE_CHECKING:
    import torch


def open_source(
    input: Input | NDArray[Any] | torch.Tensor | Stack,
    *,
    kind: Kind = "auto",
    datadir: str | Path | None = None,
    index: str | Path | NDArray[Any] | None = None,
    poses: str | Path | None = None,
    ctf: str | Path | None = None,
    wedge: Wedge | None = None,
    partial: bool = False,
    tomograms: str | Path | None = None,
    tilt_series: bool = False,
) -> Source:
    """Open images with their table.

    Parameters
    ----------
    input
        A path (STAR, .cs, .csg, CSV, MRC, NPY, ``stack.npz:name``, TIFF, Zarr, HDF5, a folder of
        pictures or of MRC files, a .txt with one file per line), a list of paths that are joined,
        an array, a tensor, or a stack.
    kind
        Meaning of an array's axes.
    datadir
        First folder in which the images of a table are searched.
    index
        Rows to keep, in order: numbers from 0, booleans or uids, as an array or a file (.npy,
        .pkl, .txt, .csv); or a table of particles (.star, .cs), see :func:`modpose.data.index`.
        Files that only other rows name may be missing.
    poses, ctf
        Files with the poses and the CTF parameters of the images, in place of those of the input;
        rows are joined by identity (:mod:`modpose.data.given`).
    wedge
        The measured part of volumes: ``(smallest, largest)`` tilt in degrees or ``"LOW,HIGH"``,
        masks (an array or a file), or a list of tomograms; see
        :func:`modpose.data.wedges.open_wedges`.
    partial
        Use only the images with a row in ``poses``, ``ctf`` and a table as ``index``.
    tomograms, tilt_series
        The list of tomograms of a table of tilt series, where none is beside it; and whether the
        images of one rlnGroupName are the tilts of one particle (M).  Each particle of tilt series
        becomes a volume with its weights (:mod:`modpose.data.tilt_volumes`).

    Raises
    ------
    InputError
        If the input cannot be used; the message says why.
    """
    folder = None if datadir is None else Path(datadir)
    opened = opened_input(input, kind, folder, tomograms, tilt_series)
    if opened.tilts is not None and not (poses is None and ctf is None and wedge is None):
        expected = "none of them for tilt series, whose tables give them"
        raise InputError.of(opened.particles.name, "poses, ctf or wedge", "given", expected)
    return source_of(opened, index=index, poses=poses, ctf=ctf, wedge=wedge, partial=partial)


def opened_input(
    input: Input | NDArray[Any] | torch.Tensor | Stack,
    kind: Kind = "auto",
    datadir: Path | None = None,
    tomograms: str | Path | None = None,
    tilt_series: bool = False,
) -> Unopened:
    """Read the list of images, or of particles of tilt series; arguments as above."""
    series = opened_tilts(input, tomograms, tilt_series, datadir)
    if series is None:
        return read_input(input, kind, datadir)
    from modpose.data.tilt_volumes import of_tilt_series

    return of_tilt_series(series)
