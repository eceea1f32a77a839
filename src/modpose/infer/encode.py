"""Content and pose of every image of a data set: by encoder, from rotated copies, or by search."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modpose import ranks
from modpose.data.batches import Batch
from modpose.data.dataset import Dataset, cut
from modpose.distributions.normal import DiagonalNormal
from modpose.errors import InputError
from modpose.geometry.rotations import wrap
from modpose.infer.copies import check_copies, picked, read_copies
from modpose.infer.encoded import Encoded, Floats
from modpose.infer.refine import Mixture, refine
from modpose.infer.search import check_searchable, content_modes, modes_of
from modpose.model.codebook import centres_of
from modpose.model.encoders.table import TableEncoder
from modpose.model.latents import Latents
from modpose.model.objective import Elbo
from modpose.model.posterior import Posterior
from modpose.model.settings import SearchSettings, SpaceSearch
from modpose.model.vae import Vae
from modpose.progress import Progress


def encode_dataset(
    vae: Vae,
    dataset: Dataset,
    *,
    device: torch.device,
    seed: int,
    quiet: bool = False,
    search: SearchSettings | None = None,
    hypotheses: DiagonalNormal | None = None,
    rows: NDArray[np.int64] | None = None,
    copies: int = 1,
    fitted: bool = True,
    shared: bool = False,
) -> Encoded:
    """Infer content and pose of every image of a data set, in order.

    Each batch has random numbers of its own, so it does not matter which process infers it.

    Parameters
    ----------
    vae
        The model.
    dataset
        Images, prepared for it.
    device
        Where the model is.
    seed
        Of the samples that estimate bounds.
    quiet
        No progress bar.
    search
        Search for poses and refine them (only content if poses are given); None uses the encoder's
        result.
    hypotheses
        (1, H, z_dim) content to search with instead of the encoder's: for a lookup table and
        images without a row in it.
    rows
        Images to infer, in this order; None: all.
    copies
        Encode this number of evenly rotated copies of each image in each of two rounds, and keep
        the consensus (:func:`modpose.infer.copies.read_copies`); not with ``search``.
    fitted
        Whether these are the images that the model was fitted to (``Batch.fitted``).
    shared
        Several processes (:mod:`modpose.ranks`) infer a part each; all of them get the whole.
    """
    given, searched = vae.imaging.poses_given, search is not None
    check_copies(copies, vae.layout, given=given, searched=searched)
    chosen = np.arange(dataset.n) if rows is None else np.asarray(rows, dtype=np.int64)
    if len(chosen) and not 0 <= chosen.min() <= chosen.max() < dataset.n:
        found, expected = f"{chosen.min()} to {chosen.max()}", f"0 to {dataset.n - 1}"
        raise InputError.of("encode", "the range of rows", found, expected)
    vae.eval()
    size = vae.whole_batch
    if search is not None and not in_space(vae):
        check_searchable(vae)
        size = max(1, size // search.modes)
    parts = list(enumerate(cut(chosen, size)))
    own = ranks.share(parts) if shared else parts
    count, done = sum(len(rows) for _, rows in own), 0
    columns: dict[str, torch.Tensor] = {}
    with Progress("encode" if search is None else "search", count, quiet=quiet) as progress:
        batches = dataset.each([rows for _, rows in own])
        for (number, _), batch in zip(own, batches, strict=True):
            generator = _generator(device, seed, number)
            ready = replace(batch.to(device), fitted=fitted)
            if search is None and copies > 1:
                values = _encode_copies(vae, ready, generator, copies)
            elif search is None:
                values = _encode_batch(vae, ready, generator)
            elif in_space(vae):
                values = _search_space(vae, ready, search.in_space, generator)
            elif hypotheses is None:
                values = _search_batch(vae, ready, search, generator, seed)
            else:
                mixture = _search(vae, ready, search, hypotheses, seed, encode=False)
                values = _mixture_values(vae, ready, mixture)
            _put(columns, values, done, count)
            done += len(batch)
            progress.advance(len(batch), 0.0)
    if shared:
        columns = _of_all(columns, [rows for _, rows in parts])
    arrays: dict[str, Any] = {
        field.name: columns[field.name].numpy() if field.name in columns else None
        for field in fields(Encoded)
    }
    return Encoded(**arrays)


def _generator(device: torch.device, seed: int, batch: int) -> torch.Generator:
    """Return the random numbers of a batch."""
    if batch:
        seed = int(np.random.SeedSequence([seed, batch]).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device).manual_seed(seed)


def _of_all(
    columns: dict[str, torch.Tensor], parts: list[NDArray[np.int64]]
) -> dict[str, torch.Tensor]:
    """Join the columns of the batches that each process inferred, in the order of images."""
    if not ranks.several():
        return columns
    each = ranks.gathered(columns)
    names, size = list(each[0]), len(each)
    whole = {}
    for name in names:
        cuts = [
            torch.split(some[name], [len(rows) for rows in parts[rank::size]]) if some else ()
            for rank, some in enumerate(each)
        ]
        whole[name] = torch.cat([cuts[k % size][k // size] for k in range(len(parts))])
    return whole


def _put(
    columns: dict[str, torch.Tensor], values: dict[str, torch.Tensor], first: int, count: int
) -> None:
    """Write the rows of a batch, from ``first`` on, into columns of the given length.

    The columns are allocated once.  Otherwise small results of every batch would lie between large
    freed blocks, which could not be used again, and memory would grow with the number of images.
    """
    for name, part in values.items():
        if name not in columns:
            columns[name] = torch.empty((count, *part.shape[1:]), dtype=part.dtype)
        columns[name][first : first + len(part)] = part


@torch.no_grad()
def _encode_batch(
    vae: Vae,
    batch: Batch,
    generator: torch.Generator,
    samples: int = 1,
    posterior: Posterior | None = None,
) -> dict[str, torch.Tensor]:
    """Infer by the encoder, or from ``posterior``; the bound is the mean over the given samples."""
    if posterior is None:
        posterior = vae.posterior(batch, known=vae.known_poses(batch))
    best = posterior.best()
    bounds = [vae.elbo(batch, posterior, generator) for _ in range(samples)]
    parts = zip(*bounds, strict=True)
    recon, kl_pose, kl_content = (torch.stack(part).mean(0) for part in parts)
    spread = posterior.spread(best.cell)
    values = _latent_values(vae, batch, best, spread)
    reflection = posterior.log_reflection()
    if reflection is not None and best.mirrored is not None:
        values["mirrored"] = best.mirrored[:, 0]
        values["mirrored_prob"] = reflection[:, 1].exp()
    elbo = Elbo(recon, kl_pose, kl_content).value()
    values |= {"pose_entropy": posterior.pose_entropy(), "elbo": elbo}
    return values | {"recon": recon, "kl_pose": kl_pose, "kl_content": kl_content}


def _encode_copies(
    vae: Vae, batch: Batch, generator: torch.Generator, copies: int
) -> dict[str, torch.Tensor]:
    """Infer from the rotated copy of each image whose pose agrees best with the others."""
    with torch.no_grad():
        read = read_copies(lambda *how: vae.posterior(batch, *how), copies, vae.layout)
    found = [_encode_batch(vae, batch, generator, posterior=one) for one in read.posteriors]
    return picked(found, read.which) | {"pose_agreement": read.agreement}


def _latent_values(
    vae: Vae, batch: Batch, best: Latents, spread: Latents
) -> dict[str, torch.Tensor]:
    pose = vae.imaging.pose(vae, batch, best)
    values = {
        "z": best.z[:, 0],
        "z_std": spread.z[:, 0],
        "rotation": pose.rotation.detach(),
        "shift": pose.shift.detach(),
    }
    if vae.layout.rotation.inferred and vae.layout.dim == 3:
        values["rotation_std_deg"] = spread.angle[:, 0].square().mean(-1).sqrt().rad2deg()
    elif vae.layout.rotation.inferred:
        values["angle_deg"] = wrap(best.angle[:, 0]).rad2deg()
        values["angle_std_deg"] = spread.angle[:, 0].rad2deg()
    if vae.layout.shift.inferred:
        values["shift_std"] = spread.shift[:, 0]
    if best.log_scale is not None and spread.log_scale is not None:
        median, width = best.log_scale[:, 0].exp(), spread.log_scale[:, 0].square()
        values["scale"] = median  # the s.d. is that of a log-normal variable
        values["scale_std"] = median * (0.5 * width).exp() * torch.expm1(width).sqrt()
    contrast = vae.imaging.contrast(vae, batch, best)
    if contrast is not None:
        values["contrast"], values["contrast_std"] = contrast
    if best.channel is not None:
        values["pose_channel"] = best.channel[:, 0]
    return values


def importance_bound(
    vae: Vae, batch: Batch, samples: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Importance-weighted bound (Burda et al. 2016), (B,) nats, at least the ELBO on average.

    Parameters
    ----------
    vae
        The model.
    batch
        B images.
    samples
        K, importance samples per image.
    generator
        Source of all randomness.
    """
    posterior = vae.posterior(batch, known=vae.known_poses(batch))
    latents = posterior.sample(samples, generator)
    each = (latents.at(slice(None), slice(k, k + 1)) for k in range(samples))
    recon = torch.cat([vae.log_likelihood(batch, one) for one in each], dim=1)
    weight = recon + posterior.log_prior_over_posterior(latents)
    return weight.logsumexp(-1) - math.log(samples)


def importance_bounds(
    vae: Vae,
    dataset: Dataset,
    samples: int,
    *,
    device: torch.device,
    seed: int,
    quiet: bool,
    fitted: bool = True,
) -> Floats:
    """Importance-weighted bound of every image, (N,) nats; parameters as elsewhere here."""
    generator = torch.Generator(device).manual_seed(seed)
    bounds, done = np.empty(dataset.n, np.float32), 0
    with torch.no_grad(), Progress("importance weights", dataset.n, quiet=quiet) as progress:
        for batch in dataset.batches(np.arange(dataset.n), vae.whole_batch):
            ready = replace(batch.to(device), fitted=fitted)
            found = importance_bound(vae, ready, samples, generator)
            bounds[done : done + len(batch)] = found.cpu().numpy()
            done += len(batch)
            progress.advance(len(batch), 0.0)
    return bounds


# --- search -----------------------------------------------------------------------------------


def _search(
    vae: Vae,
    batch: Batch,
    settings: SearchSettings,
    content: DiagonalNormal,
    seed: int,
    *,
    encode: bool,
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Mixture:
    whole = DiagonalNormal(*(part.expand(len(batch), -1, -1) for part in content))
    if vae.imaging.poses_given:  # poses are given: what is left to refine is content
        modes = content_modes(vae, batch, content.mean, settings)
        return refine(vae, batch, modes, whole, settings, encode=False, seed=seed)
    modes = modes_of(vae, batch, content.mean, settings, start)
    return refine(vae, batch, modes, whole, settings, encode=encode, seed=seed)


def _search_batch(
    vae: Vae,
    batch: Batch,
    settings: SearchSettings,
    generator: torch.Generator,
    seed: int,
) -> dict[str, torch.Tensor]:
    """Search from the encoder's result, and keep the encoder's posterior where that is better.

    One set of samples chooses, and the search has to win by a standard error of the difference;
    another set is reported.  The encoder's posterior is also kept if the reported gain is
    negative.  So a gain near zero is reported too high by a small part of its standard error; the
    bounds are otherwise unbiased.
    """
    with torch.no_grad():
        posterior = vae.posterior(batch)
        best = posterior.best()
        spread = posterior.spread(best.cell)
        bounds = [vae.elbo(batch, posterior, generator).value() for _ in range(settings.samples)]
    chosen_by = torch.stack(bounds)
    own = _encode_batch(vae, batch, generator, settings.samples)
    content = DiagonalNormal(best.z, spread.z.log())
    mixture = _search(
        vae,
        batch,
        settings,
        content,
        seed,
        encode=vae.encoder.sees_pixels,
        start=(best.angle[:, 0], best.shift[:, 0]),
    )
    found = _mixture_values(vae, batch, mixture)
    error = ((_variance(chosen_by) + _variance(mixture.elbo())) / settings.samples).sqrt()
    gain = found["elbo"] - own["elbo"]
    better = (mixture.chosen_by - chosen_by.mean(0) > error) & (gain > 0)
    kept = {
        name: torch.where(better.reshape(-1, *([1] * (value.dim() - 1))), value, own[name])
        for name, value in found.items()
    }
    return kept | {"elbo_gain": torch.where(better, gain, 0.0)}


def in_space(vae: Vae) -> bool:
    """Whether the model can search for the poses of volumes."""
    return vae.encoder.poses_in_space


@torch.no_grad()
def _search_space(
    vae: Vae, batch: Batch, settings: SpaceSearch, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Search all poses of volumes, and keep the encoder's where its bound is the higher one."""
    own = _encode_batch(vae, batch, generator)
    searched = vae.posterior(batch, known=vae.known_poses(batch), search=settings)
    found = _encode_batch(vae, batch, generator, posterior=searched)
    gain = found["elbo"] - own["elbo"]
    better = gain > 0
    kept = {
        name: torch.where(better.reshape(-1, *([1] * (value.dim() - 1))), value, own[name])
        for name, value in found.items()
    }
    return kept | {"elbo_gain": torch.where(better, gain, 0.0)}


def _variance(samples: torch.Tensor) -> torch.Tensor:
    return samples.var(0) if len(samples) > 1 else torch.zeros_like(samples[0])


def _mixture_values(vae: Vae, batch: Batch, mixture: Mixture) -> dict[str, torch.Tensor]:
    return _latent_values(vae, batch, mixture.best, mixture.spread) | {
        "pose_entropy": mixture.pose_entropy,
        "elbo": mixture.elbo().mean(0),
        "recon": mixture.recon.mean(0),
        "kl_pose": mixture.kl_pose,
        "kl_content": mixture.kl_content,
    }


@torch.no_grad()
def table_hypotheses(vae: Vae, count: int = 16) -> DiagonalNormal:
    """Pick contents that represent the rows of a lookup table, (1, H, z_dim).

    They are the centres of ``count`` groups of rows (Lloyd's algorithm from the farthest points);
    the standard deviation includes the spread of a group and that of its rows.
    """
    assert isinstance(vae.encoder, TableEncoder)
    weight = vae.encoder.rows.weight
    n_images = len(weight)
    batch = Batch(torch.arange(n_images, device=weight.device), weight.new_zeros(n_images, 0))
    posterior = vae.posterior(batch)
    best = posterior.best()
    rows, inside = best.z[:, 0], posterior.spread(best.cell).z[:, 0].square().mean(0)
    centres, group = centres_of(rows, count)
    apart = (rows - centres[group]).square().mean(0)
    log_std = 0.5 * (apart + inside).clamp(min=1e-6).log()
    return DiagonalNormal(centres[None], log_std.expand_as(centres)[None])
