#!/usr/bin/env bash
# Start a training run in a detached GNU screen session that outlives your login.
#   scripts/train_in_screen.sh NAME override...
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: scripts/train_in_screen.sh NAME override...   (the overrides of train.py, e.g. dataset=gen4 dataset.path=DATA)" >&2
    exit 2
fi
if ! command -v screen >/dev/null; then
    echo "GNU screen is not installed: apt-get install screen" >&2
    exit 2
fi
name=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if screen -ls | grep -Eq "^[[:space:]]+[0-9]+\.${name//./\\.}[[:space:]]"; then
    echo "A screen session named $name is running. Attach with: screen -r $name   or choose another name" >&2
    exit 2
fi
python=python
if [ -x "$root/.venv/bin/python" ] && [ -z "${CONDA_PREFIX:-}${VIRTUAL_ENV:-}" ]; then
    python=$root/.venv/bin/python
fi
mkdir -p runs/logs
log=$root/runs/logs/$name-$(date +%Y%m%d-%H%M%S).log
# Everything around the training ignores the signals that stop it, or what it says while it saves would be lost. The
# training itself takes SIGHUP up again; the kernel sends it when the session's leader has gone.
screen -dmS "$name" bash -c '
    log=$1; shift
    { trap "" HUP; "$@"; echo "exit code $?"; } 2>&1 | (trap "" HUP INT TERM; exec tee "$log")' \
    train_in_screen "$log" "$python" train.py "$@"
echo "Started in screen session $name, log file $log"
echo "  attach:  screen -r $name      (leave it running again with Ctrl-a d)"
echo "  follow:  tail -f $log"
echo "  stop:    screen -S $name -X quit   (saves a checkpoint; go on with resume=latest)"
