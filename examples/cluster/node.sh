#!/bin/bash
# What runs on each host of a job: one process for each GPU (or PROCESSES), all of them joined by torchrun.
#
#   RECIPE=paper RUN=/shared/run PROCESSES=2 bash examples/cluster/node.sh     # on one machine, without a scheduler
#
# HOSTS, HOST (0, 1, ...) and MASTER come from the scheduler; further arguments go to `unitweave run`.
set -euo pipefail
trap '' USR1 # Slurm's warning is for the training processes; it must not end torchrun, which started them
: "${RECIPE:?the recipe}" "${RUN:?the run folder, on a disk that all hosts see}"
gpus=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)
processes=${PROCESSES:-$((gpus > 0 ? gpus : 1))}
hosts=${HOSTS:-${SLURM_NNODES:-1}}
if ((hosts > 1)); then
  rendezvous=(--nnodes "$hosts" --node-rank "${HOST:-${SLURM_NODEID:-0}}" --master-addr "$MASTER" --master-port "${PORT:-29400}")
else
  rendezvous=(--standalone)
fi
exec torchrun "${rendezvous[@]}" --nproc-per-node "$processes" --max-restarts 0 \
  -m unitweave run "$RECIPE" --out "$RUN" "$@"
