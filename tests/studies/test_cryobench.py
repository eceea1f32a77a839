"""The study beside installed peers: its scores, its sets, what it says of commands that fail."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from modpose.errors import InputError
from modpose.simulate.atoms import read_atom_table
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings
from studies.cryobench import peers, score, sets
from studies.cryobench.__main__ import fit_options
from studies.cryobench.measure import measured


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> score.Judge:
    folder = tmp_path_factory.mktemp("bench")
    made = simulate_projections(
        ProjectionSettings(n=200, box=32, pixel_size=5.0), built_in_conformers(3)
    )
    write_projections(made, folder, 1)
    return score.Judge(folder, made.truth["class"].to_numpy(int))


def test_true_maps_reach_the_largest_area_and_others_less(judge: score.Judge) -> None:
    true = judge.areas(judge.true[judge.state[row]].volume for row in judge.rows)
    np.testing.assert_allclose(true.each, 0.5, atol=1e-5)
    mean = np.mean([one.volume for one in judge.true], 0)
    consensus = judge.areas(mean for _ in judge.rows)
    assert consensus.mean < true.mean - 0.005
    assert score.resembles(true)
    assert score.resembles(consensus)


def test_a_map_of_another_size_or_sign_does_not_resemble_the_truth(judge: score.Judge) -> None:
    mean = np.mean([one.volume for one in judge.true], 0)
    assert not score.resembles(judge.areas(-mean for _ in judge.rows))
    twice = peers.large(mean)
    assert not score.resembles(judge.areas(twice for _ in judge.rows))
    assert peers.stretched(judge, twice) > 0.999
    assert peers.stretched(judge, mean) < 0.9


def test_every_state_is_judged_in_turn(judge: score.Judge) -> None:
    states = judge.state[judge.rows]
    assert states.tolist() == [k % 3 for k in range(score.JUDGED)]
    assert len(set(judge.rows.tolist())) == score.JUDGED


def test_known_content_tells_states_apart(judge: score.Judge) -> None:
    content = score._known_content(np.stack([one.volume for one in judge.true]))
    assert content.shape == (3, 2)
    gaps = np.linalg.norm(content[:, None] - content, axis=-1)[np.triu_indices(3, 1)]
    assert gaps.min() > 3 * score.KNOWN


def test_a_command_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    cost = measured([sys.executable, "-c", "sum(range(2 * 10**6))"], log)
    assert cost.processor_s > 0
    assert cost.memory_gb > 0
    with pytest.raises(InputError, match=r"failed; .* ends: .*a reason"):
        measured([sys.executable, "-c", "raise SystemExit('a reason')"], log)


def test_a_peer_that_is_not_installed_is_named(tmp_path: Path) -> None:
    import argparse

    options = argparse.Namespace(cryodrgn_python=tmp_path / "python")
    with pytest.raises(InputError, match="without cryodrgn beside it"):
        peers.python_of("cryodrgn", options)


@pytest.mark.shared
def test_a_bent_linker_keeps_its_bonds_and_both_ends(shared_data: Path) -> None:
    table = read_atom_table(shared_data / "pdb" / "1igt.pdb", assembly=False).centred()
    rng = np.random.default_rng(0)
    heavy, (first, last) = table.chain == sets.CHAIN, sets.LINKER
    fab = (table.chain == sets.LIGHT) | (heavy & (table.residue < first))
    placed = sets._bent(table, fab, sets._moves(table, rng))

    alphas = np.flatnonzero(heavy & sets._second_atoms(table))
    near = alphas[(table.residue[alphas] >= first - 3) & (table.residue[alphas] <= last + 3)]
    steps = [np.linalg.norm(np.diff(p[near], axis=0), axis=1) for p in (placed, table.positions)]
    np.testing.assert_allclose(*steps, atol=1e-6)
    inside = [np.linalg.norm(p[fab] - p[fab][0], axis=1) for p in (placed, table.positions)]
    np.testing.assert_allclose(*inside, atol=1e-6)
    rest = ~fab & ~(heavy & (table.residue <= last))
    np.testing.assert_array_equal(placed[rest], table.positions[rest])
    assert np.linalg.norm(placed[fab] - table.positions[fab], axis=1).max() > 10


def test_the_fits_of_our_recipes_get_the_options_that_are_given() -> None:
    given = argparse.Namespace(minutes=2.5, precision=None, z_dim=8)
    assert fit_options(given) == ["--max-minutes", "2.5", "--z-dim", "8"]
