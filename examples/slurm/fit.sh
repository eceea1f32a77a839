#!/bin/bash
# Fit on two machines with four GPUs each.  Copy this file, change it, and start it with:
# sbatch fit.sh
# Submit it again after a failure: it goes on where it was.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
INPUT=particles.star
RUN=run
OPTIONS="--z-dim 2"

if [ -d $RUN ]; then
    modpose resume $RUN --devices 4 --nodes 2
else
    modpose fit $INPUT -o $RUN $OPTIONS --devices 4 --nodes 2
fi
