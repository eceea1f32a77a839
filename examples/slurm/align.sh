#!/bin/bash
# Align subtomograms in job arrays of SLURM.  Copy this file, change the next lines, and start it
# with: bash align.sh
# Start it again after a failure: it goes on where it was.
INPUT=volumes.star
OUT=aligned
OPTIONS="--classes 4"
SHARDS=8
ARRAY="--cpus-per-task=4 --mem=16G --time=12:00:00"
WAIT=5  # minutes that a shard waits for the others before it leaves its place in the queue

set -e
case "$1" in
shard)
    modpose align $INPUT -o $OUT $OPTIONS --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" --wait $WAIT
    exit
    ;;
merge)
    modpose merge $OUT
    if [ -f $OUT/particles.star ]; then exit; fi
    script=$2  # SLURM runs a copy
    ;;
*) script=$(realpath "$0") ;;
esac
array=$(sbatch --parsable $ARRAY --array=1-$SHARDS "$script" shard)
sbatch --dependency="afterok:${array%%;*}" --kill-on-invalid-dep=yes "$script" merge "$script"
