"""Run these studies: ``python -m studies.subtomograms --help``."""

from studies.common.command import run_command
from studies.subtomograms import EXPERIMENT

if __name__ == "__main__":  # also guards the workers, which import this module again
    run_command(EXPERIMENT)
