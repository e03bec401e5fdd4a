#!/usr/bin/env bash
# Start a training run in a detached GNU screen session that outlives your login.
#   scripts/train_in_screen.sh NAME override...
set -euo pipefail

usage="usage: scripts/train_in_screen.sh NAME override...   (the overrides of train.py, e.g. dataset=gen4 dataset.path=DATA)"
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    echo "$usage"
    exit 0
fi
if [ $# -lt 2 ]; then
    echo "$usage" >&2
    exit 2
fi
name=$1
shift
# screen makes a socket of this name, and completes what -r and -S are given
if ! [[ $name =~ ^[[:alnum:]_][[:alnum:]_.\ +-]{0,59}$ ]]; then
    printf 'NAME is %q: screen takes letters, digits, _ . + - and spaces, up to 60, and a letter, digit or _ first\n' "$name" >&2
    exit 2
fi
if ! command -v screen >/dev/null; then
    echo "GNU screen is not installed: apt-get install screen" >&2
    exit 2
fi
quoted=$(printf %q "$name")
if screen -ls | awk -F'\t' -v name="$name" '{ sub(/^[0-9]+\./, "", $2) } $2 == name { found = 1 } END { exit !found }'; then
    echo "A screen session named $name is running. Attach with: screen -r $quoted   or choose another name" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
python=python
if [ -x "$root/.venv/bin/python" ] && [ -z "${CONDA_PREFIX:-}${VIRTUAL_ENV:-}" ]; then
    python=$root/.venv/bin/python
fi
mkdir -p runs/logs
log=$PWD/runs/logs/$name-$(date +%Y%m%d-%H%M%S).log
# Everything around the training ignores the signals that stop it, or what it says while it saves would be lost. The
# training itself takes SIGHUP up again; the kernel sends it when the session's leader has gone.
screen -dmS "$name" bash -c '
    log=$1; shift
    { trap "" HUP; "$@"; echo "exit code $?"; } 2>&1 | (trap "" HUP INT TERM; exec tee "$log")' \
    train_in_screen "$log" "$python" "$root/train.py" "$@"
for _ in 1 2 3 4 5 6; do # what is typed wrong is told within seconds, and would be seen only in the log
    sleep 0.5
    if [ "$(tail -n 1 "$log" 2>/dev/null | cut -c1-9)" = "exit code" ]; then
        echo "It ended at once. Log file: $log" >&2
        cat "$log" >&2
        exit 1
    fi
done
echo "Started in screen session $name, log file $log"
echo "  attach:  screen -r $quoted      (leave it running again with Ctrl-a d)"
echo "  follow:  tail -f $(printf %q "$log")"
echo "  stop:    screen -S $quoted -X quit   (saves a checkpoint; go on with resume=latest)"
