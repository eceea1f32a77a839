"""Run these studies: ``python -m studies.affinity --help``."""

from studies.affinity import EXPERIMENT
from studies.common.command import run_command

if __name__ == "__main__":  # also guards the workers, which import this module again
    run_command(EXPERIMENT)
