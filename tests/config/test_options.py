"""Options from files and flags: plain YAML, possible numbers, and sentences."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from modpose import PoseModel
from modpose.config import dump_config, merge, parse_config
from modpose.config.yaml_text import dump_yaml, parse_yaml, read_yaml
from modpose.errors import InputError, shown
from modpose.limits import check_clusters, check_minutes
from modpose.options import configure, resolve
from modpose.recipes import RECIPES, recipe_config

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "line 1 has an anchor or alias"),
        ("train: {epochs: 3, epochs: 4}", "gives 'epochs' a second time"),
        ("a: !!python/object/apply:os.system [ls]", "line 1 has a tag"),
        ("[" * 5000, "more than 20 sections deep"),
        ("{a: " * 5000, "more than 20 sections deep"),
        ("a: " + "9" * 5000, "not readable as YAML"),
        ("a: 010", "begins with 0"),
        ("1: 2", "has 1 for the name of an option"),
        ("a: [", "line 1 is not readable as YAML"),
        ("a: 1\n---\nb: 2", "not readable as YAML"),
        ("- 1", "the file is a list"),
        ("", "the file is empty"),
    ],
)
def test_yaml_that_is_no_plain_mapping_is_refused_at_once(tmp_path, text, sentence) -> None:
    path = tmp_path / "o.yaml"
    path.write_text(text)
    start = time.monotonic()
    with pytest.raises(InputError, match=sentence) as refused:
        read_yaml(path)
    assert time.monotonic() - start < 2
    assert len(str(refused.value)) < 240 + len(str(tmp_path))


def test_files_that_are_no_text_are_refused(tmp_path) -> None:
    for content in (b"a: \xe9", b"\xff\xfea\0", b"a: \0", b"#" * (1 << 19)):
        (tmp_path / "o.yaml").write_bytes(content)
        with pytest.raises(InputError, match=r"o\.yaml: (not readable as YAML|the size)"):
            read_yaml(tmp_path / "o.yaml")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError):
            read_yaml(path)


def test_every_recipe_is_read_back_here_and_by_another_reader() -> None:
    for name in RECIPES:
        config = resolve(recipe_config(name))
        text = dump_config(config)
        assert parse_yaml(text, "x") == yaml.safe_load(text)
        assert parse_config(parse_yaml(text, "x"), "x") == config
    odd = {"a": ["1e3", "off", "010", "1:30", "~", "", "-", "0x1F", ".5", "2001-01-01"]}
    assert parse_yaml(dump_yaml(odd), "x") == odd == yaml.safe_load(dump_yaml(odd))


def test_words_that_yaml_1_1_takes_for_truth_are_words() -> None:
    config = resolve(
        recipe_config("modpose"),
        assignments=["model.wedge=off", "model.ctf=off", "data.invert=yes", "train.lr=1e-3"],
    )
    assert (config.model.wedge, config.model.ctf) == ("off", "off")
    assert config.data.invert is True
    assert config.train.lr == 1e-3


@pytest.mark.parametrize(
    "assignment",
    [
        *("train.lr=1e30", "train.lr=0", "train.lr=.nan", "train.lr=.inf", "train.lr=true"),
        *("seed=-1", "seed=18446744073709551616", "train.threads=100000", "model.z_dim=100000"),
        *("train.epochs=1000000000000", "train.batch_size=0", "train.batch_size=10000000000"),
        *("data.box=1", "data.box=100000000", "model.field.hidden=10000000000"),
        *("data.window=[.nan, 1]", "data.mask=.inf", "model.shift.std_px=1e300"),
        *("model.encoder.depth=100000", "train.beta.end=1e300", "train.restarts=100000"),
        *("train.epochs=" + "9" * 5000, "x" * 5000 + "=1", "a" + ".b" * 5000 + "=1", "=", "seed"),
        *("seed=&a [*a]", "seed=[", "train=3", "train=", "model.encoder.kind={a: [[[[1]]]]}"),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(assignment) -> None:
    with pytest.raises(InputError) as refused:
        resolve(recipe_config("modpose"), assignments=[assignment])
    sentence = str(refused.value)
    assert len(sentence) < 240
    assert sentence.isprintable()
    assert "Input should" not in sentence


@pytest.mark.parametrize("minutes", [float("inf"), float("nan"), -1, 0, 1e30, True, "5", 10**400])
def test_impossible_times_are_refused_everywhere(minutes) -> None:
    with pytest.raises(InputError, match="--max-minutes"):
        check_minutes(minutes)
    with pytest.raises(InputError, match="--max-minutes"):
        PoseModel(max_minutes=minutes).fit(np.zeros((4, 8, 8)))


def test_impossible_clusters_and_seeds_are_refused_before_work() -> None:
    images = np.random.default_rng(0).standard_normal((24, 8, 8)).astype(np.float32)
    for clusters in (500, 1, 25, 2.5, True, -3):
        with pytest.raises(InputError, match=r"--clusters: the number is .* from 2 to 24"):
            PoseModel(quiet=True).fit(images, clusters=clusters)
    for seed in (-1, 2**64):
        with pytest.raises(InputError, match="seed"):
            PoseModel(quiet=True, seed=seed).fit(images)
    check_clusters(np.int64(24), 24)


def test_values_are_shown_on_one_line_and_cut() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep, deep]
    for value in ("x" * 10**6, "a\nb\0c\x1b[1m", [list(range(10**6))] * 3, 10**10_000, deep, "é"):
        assert len(shown(value)) <= 70
        assert shown(value).isprintable()
    assert shown("é") == "'é'"
    assert len(str(InputError("x" * 10**6))) < 700
    assert merge({"a": {"b": 1}}, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}


def test_classes_choose_nothing_before_the_data_choose_the_recipe(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(40, 12, 12, 12)))
    flags: dict[str, tuple[str, object]] = {"--classes": ("train.start.classes", 4)}
    config = configure(str(tmp_path / "v.npy"), flags=flags)[1]
    assert config.recipe == "modpose-3d"
    assert config.train.start is not None and config.train.start.classes == 4
    np.save(tmp_path / "p.npy", np.random.default_rng(0).normal(size=(40, 12, 12)))
    with pytest.raises(InputError, match="recipe modpose does not search for classes"):
        configure(str(tmp_path / "p.npy"), flags=flags)
