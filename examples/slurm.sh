#!/bin/bash
# A run on one allocation of SLURM: a scheduler, workers, and the driver beside them. From the folder of the experiment:
#
#     sbatch slurm.sh experiment.yaml
#
# Submitted again it goes on: what was finished is kept.
#SBATCH --job-name=gaussian-test
#SBATCH --ntasks=9 --cpus-per-task=4 --mem-per-cpu=4G --time=12:00:00
#SBATCH --signal=B:TERM@300

EXPERIMENT=${1:?give an experiment: sbatch slurm.sh experiment.yaml}
OUTPUT=${OUTPUT:-$PWD/run.nc} # on a file system that all nodes see
THREADS=${SLURM_CPUS_PER_TASK:-1}
SCHEDULER=$PWD/scheduler-$SLURM_JOB_ID.json
trap 'rm -f "$SCHEDULER"' EXIT
export OMP_NUM_THREADS=$THREADS

srun --ntasks=1 --exact dask scheduler --port 0 --no-dashboard --scheduler-file "$SCHEDULER" &
srun --ntasks=$((SLURM_NTASKS - 1)) --exact dask worker --nthreads 1 --memory-limit 0 --scheduler-file "$SCHEDULER" &
until [ -s "$SCHEDULER" ]; do sleep 1; done

gaussian-test run "$EXPERIMENT" -o "$OUTPUT" --resume --scheduler "$SCHEDULER" --threads "$THREADS" &
DRIVER=$!
# five minutes before the end SLURM tells this script: the shards in work are finished, and the driver ends with 143
trap 'kill -TERM $DRIVER' TERM
wait $DRIVER
STATUS=$?
# a signal ends the first wait at once; the driver is then still at its last shards
while kill -0 $DRIVER 2>/dev/null; do
  wait $DRIVER
  STATUS=$?
done
exit $STATUS
