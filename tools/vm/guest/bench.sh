# The bench in the machine: `@ CASE WHAT NUMBER…` a line. WHAT is base (nanoseconds), restore and lazy (nanoseconds, peak
# KiB of the harness), failed (no number); of `forked`, KiB of all its processes. tools/vm/src/bench.rs reads it. /bench has the inputs; the pages that were added are made here.
set -eu
. /vm/lib.sh
mkdir -p /tmp/mark

# input NAME: puts its pages files together.
input() {
    [ ! -e /bench/$1/gap ] || (
        cd /bench/$1
        while read -r file pages; do
            bench pages $pages | cat $file.head - $file.tail >$file
            rm $file.head $file.tail
        done <gap
        rm gap
    )
}

# timed CASE WHAT OPTION…: a restore, and the end of all its processes, which have the name of the sample, ${sample}.
timed() {
    case=$1 what=$2
    shift 2
    put_files $sample
    rm -f /tmp/bench.pid
    bench run armrest restore -D /bench/$case -d --pidfile /tmp/bench.pid "$@" >/tmp/bench.out 2>/tmp/bench.err ||
        { cat /tmp/bench.out /tmp/bench.err; return 1; }
    echo "@ $case $what $(tail -n 1 /tmp/bench.out)"
    all=$(pidof $sample)
    kill -KILL $(cat /tmp/bench.pid)
    for p in $all; do gone $p; done
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

# Physical memory of all processes called `forked`, KiB: each page once, however many share it.
pss() {
    for p in $(pidof forked); do cat /proc/$p/smaps_rollup; done | awk '/^Pss:/ { sum += $2 } END { print sum }'
}

# The sample with 64 MiB in common, as it runs itself and as it is restored with 64 MiB added to each process.
shared() {
    put_files forked
    setsid /samples/bin/forked 64 </dev/null >/tmp/alive 2>&1 &
    until grep -q ready /tmp/alive; do usleep 100000; done
    echo "@ forked base $(pss)"
    kill -KILL $(pidof forked)
    for p in $(pidof forked); do gone $p; done
    input forked
    armrest restore -D /bench/forked -d
    echo "@ forked restore $(pss) 0"
    kill -TERM 401
    patience=600 gone 401
    [ "$(tail -n 1 /samples/run/forked/out.log)" = PASS ]
    rm -r /bench/forked
}

# grown SAMPLE CASE…: that sample grown to several sizes, by turns, so that what slows the machine down slows all.
grown() {
    sample=$1
    shift
    # The pids are kept free of what runs here.
    echo 5000 >/proc/sys/kernel/ns_last_pid
    for i in 1 2 3; do
        for case in "$@"; do timed $case restore || echo "@ $case failed"; done
    done
    for case in "$@"; do rm -r /bench/$case; done
}

shared
sample=counter
compared counter 5 program
compared big 5 bench fill /bench/big/pages-1.img
read -r at </bench/full.at
compared full 5 bench vmas /bench/full/pages-1.img $at 10000 1
read -r at </bench/runs.at
compared runs 5 bench vmas /bench/runs/pages-1.img $at 10000 0
compared many 1 true
grown troop8 tasks50 tasks100 tasks200
grown crowd threads250 threads500 threads1000
