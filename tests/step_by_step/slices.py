"""Our models of projections with the weights of cryoDRGN and its fork."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from modpose.config import Config
from modpose.data.batches import Batch
from modpose.fourier.projection import half_plane
from modpose.geometry.pose import Pose
from modpose.model.build import build_vae
from modpose.model.vae import Vae
from tests.step_by_step.replaying import Recorded, load
from tools.record_steps.recording import IMAGES
from tools.record_steps.slices import LAYERS, SIDE

NYQUIST = SIDE // 2


def model_of_slices(recorded: Recorded, config: Config) -> Vae:
    """Put back which coefficients count; give the field their weights.

    Coefficients of Nyquist's frequency on the axes count, as k and -k; the mean does not.
    The CTF has the other sign there, which the last layer takes.  Their network is asked about
    the half of Fourier space with z < 0, ours with z > 0: sines and imaginary parts change sign.
    """
    vae = build_vae(config, shape=(SIDE, SIDE), channels=1, n_images=IMAGES)
    plane = half_plane(SIDE, NYQUIST + 1e-3)
    counted = plane.shell > 0
    projection = vae.projection
    for name, value in plane._asdict().items():
        setattr(projection, name, value[counted])
    projection.weight = torch.full_like(projection.weight, 2.0)
    projection.log_variance = projection.log_variance[:1].expand(NYQUIST + 1).clone()
    waves = recorded["decoder/rand_freqs"]
    count = len(waves)
    first = recorded["decoder/decoder.main.0.weight"]
    sines, cosines, content = first.split([count, count, first.shape[1] - 2 * count], dim=1)
    last = 2 * LAYERS + 2
    signs = torch.tensor([-1.0, 1.0])
    values = {
        "positions": waves.T * (NYQUIST / 2),
        "first.weight": torch.cat([cosines, -sines], dim=1),
        "first.bias": recorded["decoder/decoder.main.0.bias"],
        "content.weight": content,
        "output.weight": recorded[f"decoder/decoder.main.{last}.weight"] * signs[:, None],
        "output.bias": recorded[f"decoder/decoder.main.{last}.bias"] * signs,
    }
    for layer in range(LAYERS):
        for kind in ("weight", "bias"):
            their = recorded[f"decoder/decoder.main.{2 * layer + 2}.linear.{kind}"]
            values[f"hidden.{layer}.linear.{kind}"] = their
    load(vae.field, values)
    return vae


def particles(recorded: Recorded) -> Callable[[Tensor], Batch]:
    """Batches with pose and CTF; their shift centres an image, ours is where the object is."""
    ctf = torch.cat([recorded["ctf"], torch.zeros(IMAGES, 1)], dim=1)  # no B factor
    rotation, shift = recorded["rotation"], -recorded["shift"]
    images = recorded.images

    def batch(rows: Tensor) -> Batch:
        return Batch(
            index=rows,
            image=images[rows].unsqueeze(1),
            ctf=ctf[rows],
            pose=Pose(rotation[rows], shift[rows]),
        )

    return batch


class Hartley(nn.Module):
    """From (Re, Im) of half the coefficients, (B, 2M), to Re - Im of all, in their order."""

    def __init__(self, k: Tensor) -> None:
        super().__init__()
        ours = {tuple(place): i for i, place in enumerate(k.int().tolist())}
        axis = range(-NYQUIST, NYQUIST + 1)
        theirs = [(x, y) for y in axis for x in axis if 0 < math.hypot(x, y) <= NYQUIST]
        matrix = torch.zeros(len(theirs), 2 * len(k))
        for row, (x, y) in enumerate(theirs):
            here = ours.get((x, y))
            place = ours[(-x, -y)] if here is None else here
            matrix[row, 2 * place] = 1
            matrix[row, 2 * place + 1] = -1 if here is not None else 1
        self.register_buffer("matrix", matrix)

    def forward(self, seen: Tensor) -> Tensor:
        return seen @ self.matrix.T


def use_their_wavelength(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their constants have five digits: at 300 kV the wavelength is shorter by 3e-5."""

    def wavelength(kilovolts: Tensor) -> Tensor:
        volts = 1000 * kilovolts
        return 12.2639 / torch.sqrt(volts + 0.97845e-6 * volts**2)

    monkeypatch.setattr("modpose.observe.ctf.electron_wavelength", wavelength)


def reported_loss(metrics: list[dict[str, float]], beta: float, count: int) -> list[float]:
    """Return the mean square and the KL over the coefficients, as theirs is, without constants."""
    constant = 0.5 * count * math.log(math.pi)  # of the density N(x; y, 1/2)
    return [(beta * m["kl_content"] - m["recon"] - constant) / count for m in metrics]
