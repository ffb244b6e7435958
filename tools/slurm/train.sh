#!/usr/bin/env bash
# A training on several nodes: one torchrun on each, one process a GPU.
#
#     sbatch --nodes=2 --gpus-per-node=4 tools/slurm/train.sh --config-file jhmdb/split_1 \
#         OUTPUT_DIR /shared/split_1
#
# The arguments are those of stclip train; OUTPUT_DIR must lie on a disk that all nodes share. A
# process that fails is started again with all others, RESTARTS times (default: 3), from the last
# checkpoint (SOLVER.CHECKPOINT_PERIOD). Before its time limit the job saves and is queued again,
# as Slurm does when a node fails. PROCESSES is the number a node (default: its GPUs, or 1), PYTHON
# the interpreter (default: python, of the environment that is active at the call).
#SBATCH --job-name=stclip-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch [--nodes=N] tools/slurm/train.sh --config-file CONFIG OUTPUT_DIR DIR" >&2
    exit 2
fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
cores=${SLURM_CPUS_PER_TASK:-1}
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # restarts need it (GETTING_STARTED.md)
export OMP_NUM_THREADS=$((cores > processes ? cores / processes : 1))

again=0
trap 'again=$((again + 1)); scancel --signal=TERM "$SLURM_JOB_ID"' USR1 # of the step, not of this script
srun --cpus-per-task="$cores" "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$processes" --max-restarts="${RESTARTS:-3}" \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 10000))" \
    -m stclip train --resume "$@" &
step=$!
while
    before=$again
    wait "$step"
    status=$?
    [ "$again" -ne "$before" ] && [ "$status" -eq 138 ] # the trap ended this wait, not the step
do :; done
if [ "$again" -ne 0 ] && [ "$status" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
