#!/usr/bin/env bash
# One node's part of a torchrun job under Slurm. cluster/pretrain.sbatch starts it on every node.
#
#   srun --ntasks-per-node=1 cluster/torchrun-node.sh pretrain --config train/configs/... key=value
#
# SIGUSR1 ends torchrun instead of reaching the training processes, and torchrun replaces their exit status
# by 1. So this script takes the signal and sends it to the training processes: they save a checkpoint and
# stop. It does the same with SIGTERM (preemption), because torchrun would give them only 30 seconds.
#
# BIN   folder of the commands `torchrun` and `mme` (default: .venv/bin here)
# GPUS  training processes on this node (default: the GPUs that Slurm gave)
set -euo pipefail

BIN=${BIN:-$PWD/.venv/bin}
: "${MASTER_ADDR:?the first node, which pretrain.sbatch exports}" "${MASTER_PORT:?a free port there}"

trap '' USR1 # torchrun inherits this; the training processes install their own handlers
"$BIN/torchrun" \
    --nnodes="$SLURM_JOB_NUM_NODES" \
    --nproc-per-node="${GPUS:-$SLURM_GPUS_ON_NODE}" \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$MASTER_ADDR:$MASTER_PORT" \
    --no-python "$BIN/mme" "$@" &
agent=$!
trap 'warned=1; pkill -USR1 -P "$agent" || true' USR1 TERM

status=0 warned=1
while [[ $warned ]]; do # a trapped signal ends `wait` early
    warned=
    wait "$agent" && status=0 || status=$?
done
exit "$status"
