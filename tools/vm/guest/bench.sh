# The bench in the machine: `@ CASE WHAT NUMBER…` a line. WHAT is base (nanoseconds), restore and lazy (nanoseconds, peak
# KiB of the harness). tools/vm/src/bench.rs reads it. /bench has the inputs; the pages that were added are made here.
set -eu
. /vm/lib.sh
mkdir -p /tmp/mark

# input NAME: puts its pages file together.
input() {
    [ ! -e /bench/$1/gap ] || (
        cd /bench/$1
        read -r file pages <gap
        bench pages $pages | cat head - tail >$file
        rm head tail gap
    )
}

# timed CASE WHAT OPTION…: a restore, and its end.
timed() {
    case=$1 what=$2
    shift 2
    put_files counter
    rm -f /tmp/bench.pid
    bench run armrest restore -D /bench/$case -d --pidfile /tmp/bench.pid "$@" >/tmp/bench.out 2>/tmp/bench.err ||
        { cat /tmp/bench.out /tmp/bench.err; return 1; }
    echo "@ $case $what $(tail -n 1 /tmp/bench.out)"
    kill -KILL $(cat /tmp/bench.pid)
    gone $(cat /tmp/bench.pid)
}

# compared CASE TIMES BASE…: the base and the restore by turns.
compared() {
    case=$1 times=$2
    shift 2
    input $case
    for i in $(seq $times); do
        echo "@ $case base $("$@")"
        timed $case restore
        [ $case != big ] || timed $case lazy --lazy
    done
    cat /tmp/bench.err
}

program() {
    fill=$(bench fill /bench/counter/pages-1.img)
    run=$(bench run hello | tail -n 1)
    echo $((fill + ${run% *}))
}

compared counter 5 program
compared big 5 bench fill /bench/big/pages-1.img
read -r at </bench/full.at
compared full 5 bench vmas /bench/full/pages-1.img $at 10000 1
read -r at </bench/runs.at
compared runs 5 bench vmas /bench/runs/pages-1.img $at 10000 0
compared many 1 true
