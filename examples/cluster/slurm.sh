#!/bin/bash
# From corpus to scores on Slurm: sbatch --nodes 2 examples/cluster/slurm.sh RECIPE RUN [--KEY VALUE ...]
#
# Five minutes before the time is over Slurm sends USR1: the training writes a checkpoint and ends, and the job is put
# back into the queue. A preempted job gets TERM and does the same: Slurm itself requeues one only if it has not ended
# within the partition's GraceTime. Either way it goes on there. A job that was cancelled is not requeued.
#SBATCH --job-name=unitweave
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
export RECIPE=$1 RUN=$2
shift 2
export MASTER=${MASTER:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
here=${UNITWEAVE:-$SLURM_SUBMIT_DIR} # the clone: sbatch runs a copy of this file

again=0
srun --kill-on-bad-exit=1 bash "$here/examples/cluster/node.sh" "$@" &
step=$!
trap 'again=1; kill -USR1 "$step"' USR1 # srun passes it on to all hosts
trap 'kill -TERM "$step"' TERM
code=0
while kill -0 "$step" 2>/dev/null; do # a signal ends `wait` before the step is over
  wait "$step" && code=0 || code=$?
done
if ((code != 0 && ! again)) && scontrol show job "$SLURM_JOB_ID" | grep -q 'PreemptTime=[0-9]'; then
  again=1
fi
if ((again && code != 0)); then
  echo "out of time or preempted; back into the queue"
  scontrol requeue "$SLURM_JOB_ID" || true # refused where Slurm has done it already
  exit 0
fi
exit "$code"
