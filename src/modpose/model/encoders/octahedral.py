"""Poses of volumes in two steps: a network proposes a few, then they are compared with the model.

The 24 rotations of the cube permute the Fourier coefficients of a volume exactly, including phases
and missing wedge.  One perceptron sees the low frequencies of all 24 rotated copies.  For a few
rotations near each, it gives the probability, the remaining rotation and the shift.  So a volume
that is rotated by 90 degrees gives the same numbers in other cells.  The best proposals are
compared with volumes that the model predicts, and the best of these are optimised by Gauss-Newton
steps (:mod:`modpose.search.so3_climb`).  At a pose, content follows from the amounts of the
field's pictures that explain the volume best, by least squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from modpose.config import ModelConfig, OctahedralEncoderConfig
from modpose.data.batches import Batch
from modpose.distributions.normal import DiagonalNormal
from modpose.fourier.coefficients import (
    Coefficients,
    NoiseSpectrum,
    coefficients_of,
    half_sphere,
    phases,
)
from modpose.fourier.reference import (
    References,
    make_references,
    read_side_by_side,
    side_by_side,
)
from modpose.geometry.groups import nearest, octahedral
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import (
    haar_rotations,
    rotation_of_vector,
    vector_of_rotation,
)
from modpose.model.codebook import Codebook, RankedPoses
from modpose.model.encoders.cube import cell_rotations, permutations
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.fields.basis import BasisField
from modpose.model.image_rows import KnownPoses
from modpose.model.posterior import LatentLayout, Posterior
from modpose.model.settings import SpaceSearch
from modpose.nn.perceptron import perceptron, start_small
from modpose.observe.ctf import ctf_3d
from modpose.search.so3_climb import PosedVolumes

STALE = 20
"""Training steps after which the model's volumes are transformed again."""
CLIMB_STEPS = (2, 1)
"""Limits of the frequencies that the network sees, and of those that are compared."""
POSED_AT_ONCE = 32
"""Volumes whose poses are compared with the model's in one product of matrices."""
PER_CELL = 7
"""Numbers for each rotation: its logit, a rotation vector, a shift."""


class PoseProposal(NamedTuple):
    """The network's output for B volumes and C cells, (B, C, ...).

    Attributes
    ----------
    logits
        Unnormalised log q(cell).
    turn
        Remaining rotation vector after the cell's rotation, radians.
    shift
        Of the object, in the frame of the cell's rotation, voxels.
    """

    logits: Tensor
    turn: Tensor
    shift: Tensor


class OctahedralEncoder(Encoder):
    """Map a volume to the parameters of q at a few poses, each a cell of the posterior.

    Parameters
    ----------
    model
        Sizes of the latent variables and their priors; its encoder is ``config``.
    config
        Of the encoder.
    layout
        Which latent variables there are.
    pictures
        Number of pictures that the field adds up.
    channels, shape
        Of the volumes, cubes of one channel.
    """

    poses_in_space = True
    least_batch = POSED_AT_ONCE

    index: Tensor
    sign: Tensor
    turns: Tensor
    rotations: Tensor
    noise: Tensor
    codebook: Tensor

    def __init__(
        self,
        model: ModelConfig,
        config: OctahedralEncoderConfig,
        *,
        layout: LatentLayout,
        pictures: int,
        channels: int,
        shape: Sequence[int],
    ) -> None:
        super().__init__()
        self.layout = layout
        self.config, self.box, self.z_dim = config, shape[0], model.z_dim
        self.shift_std = model.shift.std(self.box)
        self.limit = max(config.climb_limit, config.limit)
        frequency, _ = half_sphere(self.box, config.limit)
        index, sign = permutations(frequency, self.box)
        turns = octahedral().float()
        rotations = (turns[:, None] @ cell_rotations(config.cells)).flatten(0, 1)
        for name, value in (
            ("index", index),
            ("sign", sign),
            ("turns", turns),
            ("rotations", rotations),
        ):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("noise", torch.ones(self.box // 2 + 1))
        self.register_buffer("codebook", torch.zeros(config.codebook, model.z_dim))
        numbers = PER_CELL * config.cells
        self.network = perceptron(
            2 * len(frequency), numbers, config.hidden, config.depth, config.activation, False
        )
        start_small(cast(nn.Linear, self.network[-1]))
        self.log_std = nn.Parameter(torch.tensor([math.log(0.15), 0.0]))
        self.content = perceptron(pictures, 2 * model.z_dim, 64, 2, config.activation, False)
        start_small(cast(nn.Linear, self.content[-1]))
        self._pictures: References | None = None
        self._book: Codebook | None = None
        self._age = 0

    def train(self, mode: bool = True) -> OctahedralEncoder:
        """Set the mode; after training, the model's volumes are transformed again when needed."""
        if mode or self.training:
            self._pictures = self._book = None
        super().train(mode)
        return self

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose a cell for each of the best poses, including known ones."""
        field, known = cast(BasisField, context.render.field), context.known
        seen = self.coefficients(batch)
        if self.training and known is not None:
            return self._at_known(seen, known, field, context)
        with torch.no_grad():
            found = self.poses(seen, field, context.search, None if known is None else known.pose)
        count = len(found.score) // len(batch)
        owner = torch.arange(len(batch), device=batch.image.device).repeat_interleave(count)
        pose = Pose(found.rotation, found.shift)
        content = self.contents(seen.rows(owner), pose, field)
        params = self.lay_out(content, pose, widths(found.information))
        weight = found.score - 0.5 * torch.logdet(
            found.information + 1e-3 * torch.eye(6, device=found.score.device)
        )
        shape = (len(batch), count)
        return self.layout.posterior(params.reshape(*shape, -1), weight.reshape(shape))

    def _at_known(
        self, seen: Coefficients, known: KnownPoses, field: BasisField, context: Context
    ) -> Posterior:
        """Take the poses that a search found, and the log density that the network gives them."""
        params = self.lay_out(self.contents(seen, known.pose, field), known.pose, known.width)
        posterior = self.layout.one_cell(params)
        with torch.no_grad():
            z = posterior.sample(1, context.generator).z[:, 0]
        nats = self.learn_poses(seen, known.pose, z, field, context.generator)
        return posterior._replace(known_pose_log_prob=nats)

    def lay_out(self, content: Tensor, pose: Pose, width: Tensor) -> Tensor:
        """Put parameters in the order that the posterior reads them, (B, n_params).

        ``width`` (B, 2) are s.d. of rotation, radians, and shift, voxels.
        """
        columns = pose.rotation[..., :2].transpose(-1, -2).flatten(-2)
        spread = (width[:, 1:] / self.shift_std).log().expand(-1, 3)
        return torch.cat(
            [content, columns, width[:, :1].log(), pose.shift / self.shift_std, spread], -1
        )

    # --- what is seen -------------------------------------------------------------------------

    def coefficients(self, batch: Batch) -> Coefficients:
        """Return the whitened Fourier coefficients of volumes, up to the compared frequencies."""
        box = self.box
        volumes = batch.image[:, 0].float()
        mask = batch.wedge
        if mask is None:
            mask = volumes.new_ones(1, box, box, box // 2 + 1)
        ctf = None if batch.ctf is None else ctf_3d(batch.ctf, (box,) * 3)
        return coefficients_of(volumes, mask, NoiseSpectrum(self.noise), self.limit, ctf)

    @torch.no_grad()
    def pictures(self, field: BasisField) -> References:
        """Transform the field's pictures, side by side; in training, only from time to time."""
        self._age += 1
        if self._pictures is None or (self.training and self._age >= STALE):
            self._age = 0
            self._pictures = side_by_side(make_references(field.pictures[:, 0], self.limit))
        return self._pictures

    @torch.no_grad()
    def book(self, field: BasisField) -> Codebook:
        """Draw the contents of the codebook; it is kept until training continues."""
        if self._book is None or self.training:
            volumes = field.picture(self.codebook)[:, 0]
            self._book = Codebook.of(volumes, self.config.limit, self.limit)
        return self._book

    # --- the network --------------------------------------------------------------------------

    def guess(self, value: Tensor) -> PoseProposal:
        """Apply the network to low-frequency coefficients (B, K)."""
        copies = torch.cat([value.real[:, self.index], value.imag[:, self.index] * self.sign], -1)
        numbers = self.network(copies)
        numbers = numbers.reshape(len(value), len(self.rotations), PER_CELL)
        reach = self.config.max_shift_px
        return PoseProposal(numbers[..., 0], numbers[..., 1:4], reach * numbers[..., 4:])

    def log_prob(self, guess: PoseProposal, pose: Pose) -> Tensor:
        """Return the network's log density of poses (B,), (B,) nats, up to a constant."""
        rows = torch.arange(len(guess.logits), device=guess.logits.device)
        cell = nearest(pose.rotation, self.rotations)
        turn = vector_of_rotation(self.rotations[cell].transpose(-1, -2) @ pose.rotation)
        turns = self.turns[cell // self.config.cells]
        shift = torch.einsum("bji,bj->bi", turns, pose.shift)
        log_std = self.log_std.clamp(-5, 2)
        left = DiagonalNormal(guess.turn[rows, cell], log_std[:1]).log_prob(turn)
        moved = DiagonalNormal(guess.shift[rows, cell], log_std[1:]).log_prob(shift)
        return guess.logits.log_softmax(-1)[rows, cell] + left + moved

    def proposed(self, guess: PoseProposal, count: int) -> Pose:
        """Return the most probable poses, (B, count)."""
        cell = guess.logits.topk(count, dim=-1).indices
        index = cell[..., None].expand(*cell.shape, 3)
        rotation = self.rotations[cell] @ rotation_of_vector(guess.turn.gather(1, index))
        turns = self.turns[cell // self.config.cells]
        shift = torch.einsum("bkij,bkj->bki", turns, guess.shift.gather(1, index))
        reach = self.config.max_shift_px
        return Pose(rotation, shift.clamp(-reach, reach))

    def draw(
        self,
        field: BasisField,
        z: Tensor,
        transfer: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Pose]:
        """Draw low coefficients (B, K) of volumes of content z (B, z_dim), and their poses."""
        frequency = half_sphere(self.box, self.config.limit)[0].to(z.device)
        n, reach = len(z), self.config.max_shift_px
        here: dict[str, Any] = {"generator": generator, "device": z.device}
        pose = Pose(haar_rotations(n, **here), reach * (2 * torch.rand(n, 3, **here) - 1))
        parts = self._pictures_at(field, frequency, pose) * field.amounts(z).detach()[:, None]
        noise = torch.randn(n, len(frequency), 2, **here) / math.sqrt(2)
        value = parts.sum(-1) * transfer + torch.view_as_complex(noise) * (transfer != 0)
        return value, pose

    def learn_poses(
        self,
        seen: Coefficients,
        pose: Pose,
        z: Tensor,
        field: BasisField,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Log density of known poses, and of those of volumes drawn from the model, (B,) nats.

        Parameters
        ----------
        seen
            B volumes.
        pose
            Their poses.
        z
            (B, z_dim) contents of the drawn volumes.
        field
            The field that draws them.
        generator
            Source of all randomness.
        """
        low = seen.within(self.config.limit)
        values, rotation, shift = [low.value], [pose.rotation], [pose.shift]
        if self.config.drawn:
            with torch.no_grad():
                transfer = low.transfer.expand(len(z), -1).repeat(self.config.drawn, 1)
                value, drawn = self.draw(field, z.repeat(self.config.drawn, 1), transfer, generator)
            values, rotation = [*values, value], [*rotation, drawn.rotation]
            shift = [*shift, drawn.shift]
        every = Pose(torch.cat(rotation), torch.cat(shift))
        nats = self.log_prob(self.guess(torch.cat(values)), every)
        return nats.reshape(-1, len(z)).mean(0)

    # --- the model's own volumes --------------------------------------------------------------

    def poses(
        self,
        seen: Coefficients,
        field: BasisField,
        thorough: SpaceSearch | None,
        known: Pose | None,
    ) -> PosedVolumes:
        """Find the best poses of B volumes, (B K) of them, volume by volume."""
        book, reach = self.book(field), self.config.max_shift_px
        compared = measured(seen)
        low = compared.within(self.config.limit)
        if thorough is None:
            guess = self.guess(seen.within(self.config.limit).value)
            proposed = self.proposed(guess, self.config.proposals)
            shown = book.best(low, proposed, self.config.hypotheses)
        else:
            shown = book.searched(compared, thorough, reach)
        if known is not None:
            own = book.best(low, Pose(*(part[:, None] for part in known)), 1)
            shown = RankedPoses(*(torch.cat(pair, 1) for pair in zip(own, shown, strict=True)))
        if thorough is not None:
            return book.climbed(compared, shown, thorough.climb_steps, reach)
        return book.climbed_twice(compared, shown, self.config.limit, CLIMB_STEPS, reach)

    def amounts(self, seen: Coefficients, pose: Pose, field: BasisField) -> Tensor:
        """Return the amount of each field picture in B volumes, (B, J), at poses (B,).

        Least squares with a prior of unit variance, as for content.
        """
        with torch.no_grad():
            known = measured(seen)
            parts = self._pictures_at(field, known.frequency, pose) * known.transfer[..., None]
            model = torch.view_as_real(parts.transpose(1, 2).contiguous()).flatten(2)
            target = torch.view_as_real(known.value).flatten(1)
            prior = torch.eye(model.shape[1], device=model.device)
            normal = 2 * model @ model.transpose(1, 2) + prior
            found: Tensor = torch.linalg.solve(normal, 2 * (model @ target[..., None])).squeeze(-1)
            return found

    def contents(self, seen: Coefficients, pose: Pose, field: BasisField) -> Tensor:
        """Mean and log s.d. of content (B, 2 z_dim) of volumes at poses (B,)."""
        return cast(Tensor, self.content(self.amounts(seen, pose, field)))

    def _pictures_at(self, field: BasisField, frequency: Tensor, pose: Pose) -> Tensor:
        """Coefficients (B, K, J) of the field's pictures at poses (B,)."""
        values = read_side_by_side(self.pictures(field), frequency, pose.rotation)
        return values * phases(frequency, pose.shift)[..., None]


def measured(seen: Coefficients) -> Coefficients:
    """Leave out frequencies that none of the volumes measured."""
    kept = (seen.transfer != 0).any(0)
    return Coefficients(seen.frequency[kept], seen.value[:, kept], seen.transfer[:, kept], seen.box)


def widths(information: Tensor) -> Tensor:
    """S.d. (B, 2) of rotation about an axis, radians, and shift, voxels, each given the others."""
    diagonal = information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-6)
    turn, shift = diagonal[:, :3].mean(1), diagonal[:, 3:].mean(1)
    return torch.stack([turn.rsqrt().clamp(max=1.0), shift.rsqrt()], 1)
