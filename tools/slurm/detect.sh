#!/usr/bin/env bash
# Videos shared by the tasks of a job array: each task takes the next video that nobody has.
#
#     sbatch --array=0-7 tools/slurm/detect.sh VIDEOS.txt --actions walk wave --out found
#     sbatch --array=0-7 --gpus=1 --time=2:00:00 tools/slurm/detect.sh VIDEOS.txt ...
#
# VIDEOS.txt has one path a line; options are those of stclip detect. The list, the videos and --out
# must lie on a disk that all nodes share. A task that its time limit ends writes what it has found
# and is queued again, as Slurm does when a node fails; the same command goes on as well. With
# SHARES=1 a task does its own share of the list alone, for disks without locks (GETTING_STARTED.md).
# STCLIP is the program (default: stclip, of the environment that is active at the call).
#SBATCH --job-name=stclip-detect
#SBATCH --array=0-3
#SBATCH --cpus-per-task=4
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

if [ $# -lt 2 ] || [ ! -r "$1" ]; then
    echo "usage: sbatch [--array=0-N] tools/slurm/detect.sh VIDEOS.txt OPTIONS..." >&2
    exit 2
fi
mapfile -t videos < <(grep '[^[:space:]]' "$1")
shift
if [ -n "${SHARES:-}" ]; then
    if [ $((SLURM_ARRAY_TASK_MAX - SLURM_ARRAY_TASK_MIN + 1)) -ne "$SLURM_ARRAY_TASK_COUNT" ]; then
        echo "SHARES=1: an array without gaps expected, as --array=0-7; this one would leave videos out" >&2
        exit 2
    fi
    first=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))
    all=("${videos[@]}")
    videos=()
    for ((n = first; n < ${#all[@]}; n += SLURM_ARRAY_TASK_COUNT)); do
        videos+=("${all[n]}")
    done
fi
if [ ${#videos[@]} -eq 0 ]; then
    echo "no videos for this task"
    exit 0
fi
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

again=0
trap 'again=$((again + 1)); scancel --signal=TERM "$SLURM_JOB_ID"' USR1 # of the step, not of this script
srun --cpus-per-task="$OMP_NUM_THREADS" "${STCLIP:-stclip}" detect "${videos[@]}" --resume "$@" &
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
