"""Run these studies: ``python -m studies.amortisation --help``."""

from studies.amortisation import EXPERIMENT
from studies.common.command import run_command

if __name__ == "__main__":  # also guards the workers, which import this module again
    run_command(EXPERIMENT)
