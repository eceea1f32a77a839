"""The small files of a run are checked value by value."""

from __future__ import annotations

import pytest

from modpose.errors import InputError
from modpose.run.files import read_environment, read_metrics


@pytest.mark.parametrize(
    "line", ['{"epoch": 1, "\\ud800": 2}', '{"epoch": 1, "elbo": "x"}', '{"elbo": 1}', "[", "3"]
)
def test_metrics_that_are_none_are_refused(tmp_path, line) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "elbo": -3.5}\n')
    assert read_metrics(path) == [{"epoch": 1, "elbo": -3.5}]
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        read_metrics(path)


def test_values_of_the_environment_are_named(tmp_path) -> None:
    path = tmp_path / "environment.json"
    for text, named in (('{"n": "x"}', "n is 'x'"), ('{"shape": 3}', "shape is 3"), ("[]", "file")):
        path.write_text(text)
        with pytest.raises(InputError, match=named):
            read_environment(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="there is no n"):
        read_environment(path)["n"]
