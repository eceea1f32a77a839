"""Files made to run a program, fill the memory, wait for ever, or lead out of their folder."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modpose.config.yaml_text import read_yaml
from modpose.data import chunked
from modpose.data.cryosparc import read_cs
from modpose.data.given import read_poses
from modpose.data.index import select_rows
from modpose.data.inspect import describe
from modpose.data.labels import read_labels
from modpose.data.mrc import write_mrcs
from modpose.data.plain_pickle import read_plain_pickle
from modpose.data.source import open_source
from modpose.data.tables import read_particles
from modpose.errors import InputError
from modpose.train.checkpoint import read_state, read_weights

IMAGES = np.random.default_rng(0).standard_normal((3, 6, 5)).astype(np.float32)


def everything(path: Path | str) -> np.ndarray:
    source = open_source(path)
    return source.stack.read(np.arange(source.n))


# --- programs ---------------------------------------------------------------------------------


def test_postscript_in_a_picture_starts_no_program(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with Image.open(tmp_path / "a.png") as picture:  # Pillow takes it for what it is
        assert picture.format == "EPS"
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(InputError, match="not readable as a picture, expected PNG, JPEG or TIFF"):
        everything(tmp_path)


@pytest.mark.parametrize("format", ["GIF", "BMP", "PPM", "WEBP", "ICNS", "TGA"])
def test_pictures_of_other_formats_are_refused_whatever_their_name(tmp_path, format):
    if format == "WEBP" and not Image.registered_extensions().get(".webp"):
        pytest.skip("Pillow was built without WebP")
    side = 16
    Image.fromarray(np.zeros((side, side), np.uint8)).convert("RGB").save(tmp_path / "a", format)
    (tmp_path / "a").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match="expected PNG, JPEG or TIFF"):
        everything(tmp_path)


# --- memory -----------------------------------------------------------------------------------


def peak(call: Callable[[], object]) -> int:
    """Bytes that a call which must fail takes at the most."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            call()
        assert len(str(caught.value)) < 400
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress)])
def test_a_few_kilobytes_do_not_unpack_to_gigabytes(tmp_path, suffix, pack):
    write_mrcs(tmp_path / "a.mrc", IMAGES, 1.0)
    path = tmp_path / f"a.mrc.{suffix}"
    path.write_bytes(pack((tmp_path / "a.mrc").read_bytes() + bytes(2**26)))
    assert path.stat().st_size < 2**19
    assert peak(lambda: open_source(path)) < 2**22
    with pytest.raises(InputError, match="longer than its header says"):
        open_source(path)


def test_a_header_that_asks_for_more_than_the_memory_is_refused(tmp_path):
    write_mrcs(tmp_path / "a.mrc", IMAGES, 1.0)
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    raw[0:12] = struct.pack("<3i", 2**20, 2**20, 2**10)
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(InputError, match="GiB of memory"):
        open_source(tmp_path / "a.mrc.gz")


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_no_more_of_an_archive_is_unpacked_than_its_header_asks_for(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(IMAGES) + bytes(2**26))
    assert peak(lambda: open_source(f"{tmp_path}/a.npz:x")) < 2**22


def test_an_archive_may_not_name_more_than_the_memory_holds(tmp_path):
    file = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**12, 2**12)}
    np.lib.format.write_array_header_1_0(file, shape)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", file.getvalue())
    with pytest.raises(InputError, match="truncated"):
        open_source(f"{tmp_path}/a.npz:x")


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def test_a_picture_of_a_few_bytes_is_not_of_many_pixels(tmp_path):
    for side in (12_000, 60_000):
        head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        png = (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        )
        (tmp_path / "a.png").write_bytes(png)
        with pytest.raises(InputError, match=r"a\.png: the size"):
            open_source(tmp_path)


def test_a_tiff_of_a_few_bytes_is_not_of_many_pixels(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", IMAGES[0], compression="zlib", metadata=None)
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    for tag, value in ((256, 60_000), (257, 60_000), (278, 60_000)):
        at = next(
            i
            for i in range(8, len(raw) - 12)
            if struct.unpack_from("<HHI", raw, i)[0::2] == (tag, 1)
            and struct.unpack_from("<H", raw, i + 2)[0] in (3, 4)
        )
        struct.pack_into("<HII", raw, at + 2, 4, 1, value)
    (tmp_path / "a.tif").write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.tif: the size is 60000 x 60000"):
        open_source(tmp_path / "a.tif")


# --- pickles ----------------------------------------------------------------------------------


def nested(levels: int) -> bytes:
    """A tuple that holds itself twice, again and again: 2^levels entries in few bytes."""
    return b"(I1\nt" + b"2\x86" * levels


@pytest.mark.parametrize(
    "body",
    [
        nested(100),  # the answer itself
        b"cnumpy\ndtype\n(" + nested(100) + b"I0\nI1\ntR",  # the name of a type
        b"}" + nested(100) + b"I1\ns",  # a key, whose hash would take for ever
        b"\x8f(" + nested(100) + b"\x90",  # an entry of a set
        b"]2a" * 1 + b"2a" * 50,  # a list that holds itself
        b"(" * 5000 + b"t" * 5000,  # deep
        b"I1\np2147483647\n",  # a memo of two thousand million places
        b"I1\nr\xff\xff\xff\x7f",
        b"\x8e" + struct.pack("<Q", 2**62),  # more bytes than there are
        b"\x95" + struct.pack("<Q", 2**62) + b"N",
        b"L" + b"9" * 100_000 + b"L\n",  # a very long number
    ],
)
def test_no_pickle_takes_for_ever(tmp_path, body):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + body + b".")
    assert peak(lambda: read_plain_pickle(path)) < 2**25


def test_a_pickle_names_what_it_asks_for_only_where_that_is_a_name(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"cos\n\x1b[31m" + b"x" * 10_000 + b"\n.")
    with pytest.raises(InputError, match="asks for something that has no name"):
        read_plain_pickle(path)
    path.write_bytes(pickle.dumps(os.system))
    with pytest.raises(InputError, match=r"asks for posix\.system"):
        read_plain_pickle(path)


# --- what is no file --------------------------------------------------------------------------


READERS: dict[str, Callable[[Path], object]] = {
    **{
        f"x.{suffix}": open_source
        for suffix in ("star", "cs", "csv", "mrc", "mrcs", "mrc.gz", "mrc.bz2", "npy", "npz", "tif")
    },
    "x.png": open_source,
    "d.star": describe,
    "d.npz": describe,
    "p.pkl": lambda path: read_poses(path, n=3, box=6),
    "p.star": lambda path: read_poses(path, n=3, box=6),
    "i.txt": lambda path: select_rows(path, open_source(IMAGES).particles),
    "i.npy": lambda path: select_rows(path, open_source(IMAGES).particles),
    "i.pkl": lambda path: select_rows(path, open_source(IMAGES).particles),
    "l.txt": lambda path: read_labels(path, open_source(IMAGES)),
    "l.npy": lambda path: read_labels(path, open_source(IMAGES)),
    "w.safetensors": read_weights,
    "w.state": read_state,
    "t.star": read_particles,
    "t.cs": read_cs,
    "c.yaml": read_yaml,
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(InputError, match=name):
        READERS[name](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=name):
        READERS[name](path)
    path.unlink()
    with pytest.raises(InputError, match=name):
        READERS[name](path)


def test_a_pipe_among_pictures_is_named(tmp_path):
    Image.fromarray(np.zeros((6, 5), np.uint8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: this is a named pipe, expected a file"):
        open_source(tmp_path)


# --- chunks -----------------------------------------------------------------------------------


def test_hdf5_does_not_leave_its_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["x"], file["g/y"] = IMAGES, IMAGES + 1
        file["soft"] = h5py.SoftLink("/g/y")
    np.testing.assert_array_equal(everything(f"{tmp_path}/good.h5:soft")[:, 0], IMAGES + 1)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["x"] = h5py.ExternalLink("good.h5", "/x")
        file["g"] = h5py.ExternalLink("good.h5", "/g")
        file["soft"] = h5py.SoftLink("/g/y")
        file["round"] = h5py.SoftLink("/round")
    for name in (":x", "", ":g/y", ":soft", ":round"):
        with pytest.raises(InputError, match="a link to another file"):
            open_source(f"{tmp_path}/link.h5{name}")
    layout = h5py.VirtualLayout(IMAGES.shape, np.float32)
    layout[...] = h5py.VirtualSource(str(tmp_path / "good.h5"), "x", IMAGES.shape)
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    (tmp_path / "raw").write_bytes(IMAGES.tobytes())
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        outside = [(str(tmp_path / "raw"), 0, IMAGES.nbytes)]
        file.create_dataset("x", IMAGES.shape, np.float32, external=outside)
    for name in ("virtual", "outside"):
        with pytest.raises(InputError, match="the numbers are in other files"):
            open_source(tmp_path / f"{name}.h5")


def test_zarr_does_not_leave_its_store_and_unpacks_only_numbers(tmp_path):
    zarr = pytest.importorskip("zarr")
    for version in (2, 3):
        path = tmp_path / f"good{version}.zarr"
        array = zarr.create_array(path, data=IMAGES, chunks=(1, 6, 5), zarr_format=version)
        assert array.shape == IMAGES.shape
        np.testing.assert_array_equal(everything(path)[:, 0], IMAGES)
        piece = next(p for p in sorted(path.rglob("*")) if p.is_file() and "zarr" not in p.name)
        piece.rename(tmp_path / "elsewhere")
        piece.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="is a link, expected a store without links"):
            open_source(path)
        piece.unlink()
        piece.write_bytes(b"damaged")
        with pytest.raises(InputError, match="not readable as Zarr"):
            everything(path)
    metadata = tmp_path / "good2.zarr" / ".zarray"
    metadata.write_text(
        metadata.read_text().replace('"filters": null', '"filters": [{"id": "pickle"}]')
    )
    with pytest.raises(InputError, match=r"not readable as Zarr|the codec is 'pickle'"):
        everything(tmp_path / "good2.zarr")


def test_the_codecs_of_a_zarr_array_are_found_at_every_depth():
    shard = {"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}], "index_codecs": ()}
    codecs = [{"name": "sharding_indexed", "configuration": shard}]
    assert set(chunked._codecs({"codecs": codecs})) - chunked.CODECS == {"pickle"}
    old = {"filters": [{"id": "delta"}, {"id": "evil"}], "compressor": {"id": "blosc"}}
    assert set(chunked._codecs(old)) - chunked.CODECS == {"evil"}
