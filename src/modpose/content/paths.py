"""Paths of content that stay where images are.

Images are joined to those of their nearest neighbours that have them among their own nearest
neighbours, too.  An edge costs its length over the squared density at its ends.  The cheapest
path is the one of largest flux of a diffusion in the free energy -ln(density) at half its
temperature (Huo & Straub 1997, J. Chem. Phys. 107, 5000).  Regions without images between them
are not joined.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.content.density import NEIGHBOURS, Floats, log_density, rows_of, some
from modpose.errors import InputError
from modpose.limits import MOST_STEPS, check_whole

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Rows = NDArray[np.int64]

MOST_NODES = 20_000
"""Images that are joined; of more, a random part."""
POWER = 2.0
"""Of the density in the cost of an edge: uncertain content puts some images into gaps."""
FINE, ROUGH = 20, 10
"""Points a step of a path before it is smoothed; stops of a path that is only measured."""
CLOSE, GAP = 5, 6.0
"""An edge is at most so many times longer than the distance to the neighbour of this number, at
both ends: a small island is not joined to a far one."""
FAR = 3.0
"""Distance of an end from the nearest node, in distances of that node's neighbours, above which it
lies in an empty region."""


@dataclass(frozen=True)
class DensePath:
    """A path of content through images.

    Attributes
    ----------
    z
        (S, d) contents at equal distances along it.
    line
        (M, d) many more of them, from the first to the last.
    rows
        Positions of the images that it passes, in order.
    radius
        Distance from it within which images count as near.
    """

    z: Floats
    line: Floats
    rows: Rows
    radius: float

    @property
    def length(self) -> float:
        """Length in units of content."""
        return float(np.linalg.norm(np.diff(self.line, axis=0), axis=1).sum())

    def places(self, z: ArrayLike) -> tuple[Floats, Floats]:
        """Place images along the path.

        Parameters
        ----------
        z
            (N, d) content.

        Returns
        -------
        position, distance
            (N,) from 0 at the first stop to 1 at the last, NaN beyond :attr:`radius`; and (N,) the
            distance from the path.
        """
        points = np.asarray(z, np.float64).reshape(-1, self.line.shape[1])
        best = np.full(len(points), np.inf)
        position = np.zeros(len(points))
        for step, (a, b) in enumerate(zip(self.line[:-1], self.line[1:], strict=True)):
            line = b - a
            share = np.clip((points - a) @ line / max(float(line @ line), 1e-300), 0, 1)
            distance = np.linalg.norm(points - a - share[:, None] * line, axis=1)
            nearer = distance < best
            best[nearer] = distance[nearer]
            position[nearer] = (step + share[nearer]) / (len(self.line) - 1)
        position[best > self.radius] = np.nan
        return position, best


class Landscape:
    """Images joined to near ones, with the density at each.

    Parameters
    ----------
    z
        (N, d) content.
    neighbours
        Nearest neighbours that an image may be joined to.
    seed
        Of the choice of images, of more than 20,000.

    Raises
    ------
    InputError
        If content is constant or not finite.
    """

    def __init__(self, z: ArrayLike, neighbours: int = NEIGHBOURS, seed: int = 0) -> None:
        self.z = rows_of(z, "path")
        self.nodes: Rows = some(len(self.z), MOST_NODES, seed)
        few = max(CLOSE, len(self.nodes) // 10)
        self.neighbours = min(neighbours, few, len(self.nodes) - 1)
        self._find()

    def _find(self) -> None:
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import connected_components
        from sklearn.neighbors import NearestNeighbors

        points, k = self.z[self.nodes], self.neighbours
        distance, index = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()
        self.reach: Floats = distance[:, -1]
        self._index = index
        weight = -log_density(points, k)
        self.energy: Floats = weight[index].mean(1) - weight[index].mean(1).min()
        n = len(points)
        ends = np.repeat(np.arange(n), k)
        length = np.maximum(distance.ravel(), 1e-300)  # a zero would be no edge
        close = np.repeat(distance[:, min(CLOSE, k) - 1], k)
        length[length > GAP * np.maximum(close, 1e-300)] = 0  # no edge over a gap
        one_way = csr_matrix((length, (ends, index.ravel())), shape=(n, n))
        self._edges: csr_matrix = one_way.minimum(one_way.T)  # zero unless both have it
        self._edges.eliminate_zeros()
        self.component: NDArray[np.integer] = connected_components(self._edges, directed=False)[1]

    @cached_property
    def _costs(self) -> csr_matrix:
        edges = self._edges.tocoo()
        energy = (self.energy[edges.row] + self.energy[edges.col]) / 2
        edges.data = edges.data * np.exp(np.minimum(POWER * energy, 200.0))
        return edges.tocsr()

    def node_at(self, point: Floats, name: str) -> int:
        """Return the nearest node of a region of many images, or refuse an empty place."""
        large = np.bincount(self.component)[self.component] > self.neighbours
        allowed = np.flatnonzero(large) if large.any() else np.arange(len(self.nodes))
        away = np.linalg.norm(self.z[self.nodes[allowed]] - point, axis=1)
        nearest = int(allowed[away.argmin()])
        if away.min() > FAR * self.reach[nearest]:
            raise InputError(f"path: {name} lies in an empty region, expected a place among images")
        return nearest

    def path(
        self, ends: ArrayLike, steps: int = 10, names: tuple[str, ...] | None = None
    ) -> DensePath:
        """Find the path through dense regions that passes two or more contents in order.

        Parameters
        ----------
        ends
            (E, d) contents, E at least 2.
        steps
            Number of stops, S.
        names
            Of the ends, for messages.

        Raises
        ------
        InputError
            If an end lies in an empty region, or no images join two of them.
        """
        check_whole("path", "the number of steps", steps, 2, MOST_STEPS)
        points = np.asarray(ends, np.float64).reshape(-1, self.z.shape[1])
        named = names or tuple(f"end {i + 1}" for i in range(len(points)))
        nodes = [self.node_at(p, name) for p, name in zip(points, named, strict=True)]
        passed: list[int] = nodes[:1]
        for i, (a, b) in enumerate(pairwise(nodes)):
            if self.component[a] != self.component[b]:
                raise InputError(
                    f"path: {named[i]} and {named[i + 1]} are in separate regions of content with "
                    "no images between them, expected two places that images join"
                )
            passed += self._legs(a, [b])[0][1:]
        return self._smooth(np.array(passed), steps)

    def _legs(self, start: int, ends: list[int]) -> list[list[int]]:
        """Cheapest ways, lists of nodes, from one node to others of its component."""
        from scipy.sparse.csgraph import dijkstra

        _, before = dijkstra(self._costs, directed=False, indices=[start], return_predecessors=True)
        legs = []
        for end in ends:
            leg = [end]
            while leg[-1] != start:
                leg.append(int(before[0, leg[-1]]))
            legs.append(leg[::-1])
        return legs

    def farthest(self, places: ArrayLike) -> tuple[int, int] | None:
        """Choose the two of several contents (E, d) with the longest path; None if none are joined.

        A content in an empty region is left out.
        """
        nodes: list[tuple[int, int]] = []
        for i, point in enumerate(np.asarray(places, np.float64)):
            with suppress(InputError):
                nodes.append((i, self.node_at(point, "")))
        longest, pair = 0.0, None
        for k, (i, start) in enumerate(nodes):
            joined = [
                (j, end)
                for j, end in nodes[k + 1 :]
                if end != start and self.component[end] == self.component[start]
            ]
            for (j, _), leg in zip(joined, self._legs(start, [e for _, e in joined]), strict=True):
                length = self._smooth(np.array(leg), ROUGH).length
                if length > longest:
                    longest, pair = length, (i, j)
        return pair

    def _smooth(self, passed: Rows, steps: int) -> DensePath:
        """Take the mean of the neighbours of each node, a smooth line, stops at equal distances.

        The line is smoothed over half a step, but not over more than images near it are apart, so
        that it cuts no corner.
        """
        from scipy.ndimage import gaussian_filter1d

        points = self.z[self.nodes]
        centre = (points[self._index[passed]].sum(1) + points[passed]) / (self.neighbours + 1)
        fine = _even(centre, FINE * (steps - 1) + 1)
        apart = float(np.median(self.reach[passed]))
        width = min(FINE / 2, apart / max(float(np.linalg.norm(fine[1] - fine[0])), 1e-300))
        smooth = gaussian_filter1d(fine, width, axis=0, mode="nearest")
        line = _even(smooth, len(fine))  # every FINE-th is a stop
        return DensePath(line[::FINE], line, self.nodes[passed], 2 * apart)


def _even(points: Floats, count: int) -> Floats:
    """Take so many points at equal distances along a line through points (M, d)."""
    along = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    if along[-1] == 0:
        raise InputError("path: its two ends are the same place, expected two places")
    stops = np.linspace(0, along[-1], count)
    return np.stack([np.interp(stops, along, part) for part in points.T], axis=1)


def dense_path(
    z: ArrayLike,
    ends: ArrayLike,
    steps: int = 10,
    *,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
    names: tuple[str, ...] | None = None,
) -> DensePath:
    """Find the path of content through dense regions from one content to another.

    Parameters
    ----------
    z
        (N, d) content of images.
    ends
        (E, d) contents to pass in order, E at least 2.
    steps
        Number of stops, at equal distances along the path.
    neighbours
        Nearest neighbours that an image may be joined to.
    seed
        Of the choice of images, of more than 20,000.
    names
        Of the ends, for messages.

    Returns
    -------
    DensePath

    Raises
    ------
    InputError
        If an end lies in an empty region, or no images join two of them.

    Examples
    --------
    >>> angle = np.random.default_rng(0).uniform(0, 3, 2000)
    >>> arc = np.stack([np.cos(angle), np.sin(angle)], 1)
    >>> path = dense_path(arc, [arc[angle.argmin()], arc[angle.argmax()]], steps=7)
    >>> bool(np.abs(np.linalg.norm(path.z, axis=1) - 1).max() < 0.05)  # along the arc
    True
    """
    return Landscape(z, neighbours, seed).path(ends, steps, names)
