#!/usr/bin/env bash
# Everything that is worth knowing about a GPU, in under ten minutes: do results agree with the CPU's,
# what do tests and training cost, does a training in float16 go on after an interruption.
#
#     tools/gpu_report.sh OUT
#     PYTHON=.venv/bin/python STEPS="tests check" tools/gpu_report.sh OUT
#
# OUT, a folder that is not there yet, receives a log and numbers of each step, and summary.txt. A
# step that fails or takes too long is noted there, and the next one follows. Without a GPU the exit
# status is 2. STEPS chooses among: tests check infer train puppet compile.
set -uo pipefail

if [ $# -ne 1 ]; then
    echo "usage: tools/gpu_report.sh OUT   (see the head of the file)" >&2
    exit 2
fi
if [ -e "$1" ]; then
    echo "error: $1 exists already; choose another name" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
OUT=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python3}
STEPS=${STEPS:-tests check infer train puppet compile}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if ! "$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "error: torch finds no GPU" | tee "$OUT/summary.txt" >&2
    exit 2
fi
CORES=$(nproc)
WORKERS=$((CORES > 2 ? CORES - 2 : 1))
failed=0

# step NAME SECONDS COMMAND...: run it, keep its log, and note how it ended.
step() {
    local name=$1 limit=$2 start=$SECONDS status
    shift 2
    echo "== $name: $*"
    timeout --kill-after=10 "$limit" "$@" >"$OUT/$name.log" 2>&1
    status=$?
    [ $status -ne 0 ] && failed=1
    echo "$name: status $status after $((SECONDS - start)) s" | tee -a "$OUT/summary.txt"
    tr '\r' '\n' <"$OUT/$name.log" | tail -n 12
}
wanted() { [[ " $STEPS " == *" $1 "* ]]; }
benchmark() {
    local name=$1 limit=$2
    shift 2
    step "$name" "$limit" "$PYTHON" tools/benchmark.py "$@" --repeats 2 --json "$OUT/$name.json"
}

nvidia-smi >"$OUT/nvidia-smi.txt" 2>&1 || true
"$PYTHON" -c "import torch; p = torch.cuda.get_device_properties(0); print(p, torch.__version__)" |
    tee -a "$OUT/summary.txt"

if wanted tests; then
    step tests 100 "$PYTHON" -m pytest -q -m gpu -k "not compiled" --durations=5 tests
fi
if wanted check; then
    step check 150 "$PYTHON" tools/gpu_check.py --json "$OUT/check.json"
fi
infer=(--keyframes 2000 --workers "$WORKERS")
if wanted infer; then
    benchmark infer-bf16-8 60 infer "${infer[@]}" --precision bf16 --chunk 8
    benchmark infer-bf16-32 60 infer "${infer[@]}" --precision bf16 --chunk 32
    benchmark infer-fp16 60 infer "${infer[@]}" --precision fp16 --chunk 32
    benchmark infer-fp32 60 infer "${infer[@]}" --precision fp32 --chunk 32
    benchmark infer-L14 90 infer "${infer[@]}" --precision bf16 --chunk 8 --model ViT-L/14 \
        --classes 80 --interest-tokens 20
fi
train=(--iterations $((2 * WORKERS + 20)) --workers "$WORKERS")
if wanted train; then
    benchmark train-bf16 60 train "${train[@]}" --precision bf16
    benchmark train-recomputed 60 train "${train[@]}" --precision bf16 --recompute
    benchmark train-fp32 60 train "${train[@]}" --precision fp32
    benchmark train-L14 60 train "${train[@]}" --precision bf16 --model ViT-L/14
fi
if wanted puppet; then
    if [ ! -e data/puppet ]; then
        step puppet-draw 120 "$PYTHON" tools/prepare_puppet.py --train-clips 24 --test-clips 10
    fi
    config=(--config-file configs/puppet/split_1.yaml MODEL.PRECISION fp16
        DATALOADER.NUM_WORKERS "$WORKERS" OUTPUT_DIR "$OUT/puppet")
    one=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node=1 tools/train_net.py)
    # A part of it, then a signal in the middle of an iteration, then to the end.
    # The status of this one is that of a process that was ended.
    step puppet-train 100 "${one[@]}" "${config[@]}" SOLVER.CHECKPOINT_PERIOD 100 &
    running=$!
    for _ in $(seq 90); do
        sleep 1
        [ -e "$OUT/puppet/model_0000100.pth" ] && break
    done
    pkill -TERM -f "tools/train_net.py.*$OUT/puppet" || true
    wait $running
    step puppet-resume 100 "${one[@]}" --resume "${config[@]}" SOLVER.CHECKPOINT_PERIOD 100
    step puppet-test 100 "$PYTHON" tools/test_net.py "${config[@]}" \
        MODEL.WEIGHT "$OUT/puppet/model_0000400.pth"
    rm -f "$OUT"/puppet/model_*.pth
fi
if wanted compile; then
    step compile-tests 150 "$PYTHON" -m pytest -q -m gpu -k compiled --durations=5 \
        -o faulthandler_timeout=100 tests
    benchmark infer-compiled 150 infer "${infer[@]}" --precision bf16 --chunk 32 --compile
fi
cat "$OUT/summary.txt"
exit $failed
