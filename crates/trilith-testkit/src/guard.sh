# Runs one service for a test and cleans up after it, however the test ends.
#
#   sh -c "$(cat guard.sh)" guard DIR [PROGRAM ARGUMENT...]
#
# Prints the process id of PROGRAM, then waits for the end of standard input; for each line that
# comes before, PROGRAM, which has to have ended, is started again. The test holds the
# other end of that pipe, so it ends when the test drops its handle, fails or is killed. Then it
# runs DIR/cleanup if there is one, stops PROGRAM (TERM, KILL after 30 seconds), kills whatever
# still names DIR on its command line, unmounts what is mounted below DIR and removes DIR.
set -u
dir=$1
shift

start() {
    "$@" >>"$dir/stdout" 2>>"$dir/stderr" </dev/null &
    pid=$!
}

pid=
if [ $# -gt 0 ]; then
    start "$@"
fi
echo "$pid"
while read -r _again; do
    wait "$pid"
    start "$@"
    echo "$pid"
done
exec >/dev/null

if [ -f "$dir/cleanup" ]; then
    timeout --kill-after=5 60 sh "$dir/cleanup" </dev/null
fi

# `sleep` in the foreground lets the shell reap the service, so that `kill -0` can see its end.
if [ -n "$pid" ]; then
    kill -TERM "$pid"
    rounds=0
    while kill -0 "$pid" 2>/dev/null; do
        rounds=$((rounds + 1))
        if [ "$rounds" -eq 600 ]; then
            kill -KILL "$pid"
            break
        fi
        sleep 0.05
    done
    wait "$pid"
fi

# Repeated until none is left: a process takes a moment to die.
rounds=0
found=yes
while [ -n "$found" ] && [ "$rounds" -lt 100 ]; do
    found=
    for file in /proc/[0-9]*/cmdline; do
        other=${file#/proc/}
        other=${other%/cmdline}
        if [ "$other" != "$$" ] && grep -qF "$dir" "$file" 2>/dev/null; then
            kill -KILL "$other"
            found=yes
        fi
    done
    if [ -n "$found" ]; then
        rounds=$((rounds + 1))
        sleep 0.05
    fi
done

# Innermost mounts come last in the table and first out of `sort -r`.
cut -d' ' -f2 /proc/self/mounts | grep -F "$dir/" | sort -r | while read -r mount; do
    umount -l "$mount"
done
rm -rf --one-file-system "$dir"
