# Functions for tests in the machine.

# put_files NAME: the files of that sample as they were when it was dumped. files.modes: see the samples' README.
put_files() {
    rm -rf /samples/run/$1
    mkdir -p /samples/run/$1
    [ ! -d /images/$1/files ] || cp -R /images/$1/files/. /samples/run/$1/
    chmod -R u+w /samples/run/$1
    [ -e /images/$1/files.modes ] || return 0
    while read -r kind mode path; do
        case $kind in
            f) chmod $mode /samples/run/$1/$path ;;
            d) mkdir -p -m $mode /samples/run/$1/$path ;;
            p) mkfifo -m $mode /samples/run/$1/$path ;;
            h) ln /samples/run/$1/$path /samples/run/$1/$mode ;;
        esac
    done </images/$1/files.modes
}

# gone PID: waits until it has ended, 10 s at most, or ${patience} tenths of a second.
gone() {
    for i in $(seq ${patience:-100}); do
        # A state of neither Z nor X: it lives. No such file: it is gone.
        grep -q '^State:.[^ZX]' /proc/$1/status 2>/dev/null || return 0
        usleep 100000
    done
    echo "process $1 is still there:"
    cat /proc/$1/status /proc/$1/wchan
    return 1
}

# hurried PID: the sample `threads`, told to end, ends. Its workers never load their loop counter (r10) again, so from the
# second round on each counts down from 2^32 before it looks: half a minute to several, while its leader waits in a futex.
# Once the leader waits, the counters are set to 1.
hurried() {
    for i in $(seq ${patience:-100}); do
        ! grep -q futex /proc/$1/wchan || break
        usleep 100000
    done
    for task in /proc/$1/task/*; do
        case $(cat $task/comm) in worker-*) poke ${task##*/} reg 10 1 || return 1 ;; esac
    done
}

# root_pid NAME: the pid of the first process of the checkpoint.
root_pid() { armrest x /images/$1 ps | awk '$1 ~ /^[0-9]+$/ { print $1; exit }'; }

# restored NAME [OPTION…]: restores the sample where and as it was, lets it run, ends it, and wants its PASS.
# It runs for a second, or ${run} microseconds.
restored() {
    name=$1
    shift
    put_files $name
    log=/samples/run/$name/out.log
    pid=$(root_pid $name)
    status=0
    rm -f /tmp/$name.pid
    armrest restore -D /images/$name -d --pidfile /tmp/$name.pid "$@" || status=$?
    if [ $status != 0 ]; then
        echo "armrest restore: $status"
        return $status
    fi
    if [ "$(cat /tmp/$name.pid)" != "$pid" ]; then
        echo "pid $(cat /tmp/$name.pid), not $pid"
        return 1
    fi
    echo "--- /proc/$pid/maps"
    cat /proc/$pid/maps || return 1
    echo "---"
    # It is stopped, as it was.
    [ $name != halted ] || kill -CONT $pid || return 1
    usleep ${run:-1000000}
    kill -TERM $pid || return 1
    [ $name != threads ] || hurried $pid || return 1
    gone $pid || return 1
    tail -n 3 $log
    [ "$(tail -n 1 $log)" = PASS ]
}

# fresh NAME: restored, in an IPC namespace of its own: the ids are free, and some samples leave their segments behind.
fresh() { unshare -i sh -eu -c '. /vm/lib.sh; restored "$1"' sh $1; }

# lent [OPTION…]: restores the tree `lent` with a terminal, a unix socket, a pipe and a file of a process outside (the same
# program, which answers), under other numbers than the task has; the file as it was, with a line of the program's. Wants a
# PASS, and that all arrived outside.
lent() {
    put_files lent
    rm -rf /tmp/outside
    mkdir /tmp/outside
    given='--inherit-fd fd[5]:pipe[9864]'
    fd=3
    for id in tty[8800:13] unix[9863] file[18:6]; do
        given="$given --external $id --inherit-fd fd[$fd]:$id"
        fd=$((fd == 4 ? 6 : fd + 1))
    done
    (
        cd /tmp/outside
        exec /samples/bin/lent lend sh -c 'exec 3<&10 4<&11 5>&12 6<&13 10<&- 11<&- 12<&- 13<&-; echo first >&6; "$@" >said 2>&1; echo $? >status' \
            sh armrest restore -D /images/lent -d $given "$@"
    ) &
    outside=$!
    for i in $(seq 300); do [ ! -s /tmp/outside/status ] || break; usleep 100000; done
    cat /tmp/outside/said
    [ $(cat /tmp/outside/status) = 0 ] || return 1
    for pid in 403 404; do
        [ "$(readlink /proc/$pid/fd/12)" = "$(sed -n 's/\(pipe\)\(.*\)/\1:\2/p' /tmp/outside/ids)" ] || return 1
        [ "$(readlink /proc/$pid/fd/13)" = /tmp/outside/on-loan ] || return 1
    done
    kill -TERM 403
    gone 403 || return 1
    wait $outside || return 1
    cat /tmp/outside/arrived
    [ "$(sort /tmp/outside/arrived | tr '\n' ,)" = 'pipe child,pipe parent,socket child,socket parent,terminal child,terminal parent,' ] || return 1
    tail -n 3 /samples/run/lent/out.log
    [ "$(tail -n 1 /samples/run/lent/out.log)" = PASS ]
}

# sample NAME: restored unless armrest refuses it by name, and then it must PASS. What is listed in `restored` must not
# be refused again. 77: refused.
sample() {
    # CLOCK_MONOTONIC of the checkpoint is not kept.
    later_than 20
    # What is outside has to be given.
    [ $1 != lent ] || { lent; return; }
    # Huge pages: what a kernel without them says is what is wanted of it, and nothing else.
    if [ $1 = huge ] && ! grep -q '^Hugepagesize:' /proc/meminfo; then
        put_files $1
        status=0
        armrest restore -D /images/$1 -d >/tmp/said 2>&1 || status=$?
        cat /tmp/said
        [ $status = 102 ] && [ "$(grep -c '^armrest: plan: .* huge pages (hugetlb) of .*, which this kernel does not have' /tmp/said)" = 2 ]
        return
    fi
    [ $1 != huge ] || echo 8 >/proc/sys/vm/nr_hugepages
    put_files $1
    status=0
    armrest restore -D /images/$1 --new-namespaces --dry-run >/tmp/dry 2>&1 || status=$?
    if [ $status = 94 ]; then
        grep -m 3 '^armrest: plan:.*: not supported$' /tmp/dry || { cat /tmp/dry; return 1; }
        ! grep -qw $1 /vm/restored || { echo "it was restored once: tools/vm/guest/restored"; return 1; }
        return 77
    fi
    for time in 1 2 3; do
        status=0
        fresh $1 || status=$?
        [ $status != 0 ] || return 0
        ! slack_alone $1 || return 0
        # None at all: either the timer is not armed, or the ticks of a busy host fell elsewhere. Not three times.
        [ $1 = ticking ] && grep '^FAIL .*: interval timers: [1-9][0-9]* 0 [1-9][0-9]*$' /samples/run/ticking/out.log || return 1
    done
    return 1
}

# slack_alone NAME: what an image does not record cannot be put back; the sample says so, rightly. And `ticking` counts
# signals of a timer of user time in a window of all CPU time: on a busy host there may be one where it wants two.
slack_alone() {
    log=/samples/run/$1/out.log
    [ "$(tail -n 1 $log)" = "FAIL 1" ] || return 1
    case $1 in
        identity) grep -q '^FAIL .*: timer slack ' $log ;;
        ticking) grep -q '^FAIL .*: interval timers: [1-9][0-9]* [1-9][0-9]* [1-9][0-9]*$' $log ;;
        *) return 1 ;;
    esac
}

# again NAME COUNT: so often in a row.
again() {
    time=0
    while [ $time -lt $2 ]; do
        time=$((time + 1))
        run=200000 fresh $1 >/tmp/out 2>&1 || { echo "time $time of $2:"; cat /tmp/out; return 1; }
    done
    echo "$2 times: PASS"
}

# roots NAME: a tree for each of ${numbers}, below which that sample can be restored.
roots() {
    for n in $numbers; do
        root=/tmp/copy.$n
        rm -rf $root $root.pid
        mkdir -p $root/samples/bin $root/samples/run $root/dev
        mknod -m 666 $root/dev/null c 1 3
        cp /samples/bin/$1 $root/samples/bin/
        cp -a /samples/run/$1 $root/samples/run/
        [ ! -d /images/$1/root ] || { cp -R /images/$1/root/. $root/; ln -s usr/lib $root/lib; }
    done
}

# copies NAME COUNT: that many at once, each in namespaces and below a root of its own.
copies() {
    put_files $1
    numbers=$(seq $2)
    roots $1
    jobs=
    for n in $numbers; do
        armrest restore -D /images/$1 -r /tmp/copy.$n --new-namespaces -d --pidfile /tmp/copy.$n.pid >/tmp/copy.$n.log 2>&1 &
        jobs="$jobs $!"
    done
    bad=0 n=0
    for job in $jobs; do
        n=$((n + 1))
        wait $job || { echo "copy $n: armrest restore: $?"; cat /tmp/copy.$n.log; bad=1; }
    done
    [ $bad = 0 ] || return 1
    sleep 1
    for n in $numbers; do
        pid=$(cat /tmp/copy.$n.pid)
        echo "copy $n: pid $pid, there $(grep NSpid /proc/$pid/status)"
        kill -TERM $pid || bad=1
    done
    for n in $numbers; do
        gone $(cat /tmp/copy.$n.pid) || bad=1
        log=/tmp/copy.$n/samples/run/$1/out.log
        [ "$(tail -n 1 $log)" = PASS ] || { echo "copy $n:"; tail -n 3 $log; cat /tmp/copy.$n.log; bad=1; }
    done
    [ $bad = 0 ]
}

# verified NAME [OPTION…]: restores the sample and leaves it stopped before its first instruction, compares it with its
# images to the last bit, lets it go on, ends it, wants PASS.
verified() {
    stopped_there "$@" || return 1
    goes_on $1
}

# verified_copy NAME: the same in new namespaces and below a root of its own.
verified_copy() {
    put_files $1
    numbers=v roots $1
    armrest restore -D /images/$1 -r /tmp/copy.v --new-namespaces -s -d --pidfile /tmp/copy.v.pid || return 1
    pid=$(cat /tmp/copy.v.pid)
    grep -q '^State:.T' /proc/$pid/status || { cat /proc/$pid/status; return 1; }
    status=0
    armrest verify -D /images/$1 -r /tmp/copy.v -t $pid >/tmp/verify || status=$?
    cat /tmp/verify
    [ $status = 0 ] || return 1
    kill -CONT $pid || return 1
    usleep 500000
    kill -TERM $pid || return 1
    gone $pid || return 1
    tail -n 3 /tmp/copy.v/samples/run/$1/out.log
    [ "$(tail -n 1 /tmp/copy.v/samples/run/$1/out.log)" = PASS ]
}

# stopped_there NAME [OPTION…]: restores the sample and leaves it stopped before its first instruction; compares it with
# its images to the last bit, twice: looking changes nothing. What verify said is in /tmp/verify.
stopped_there() {
    name=$1
    shift
    put_files $name
    pid=$(root_pid $name)
    armrest restore -D /images/$name -d -s "$@" || return 1
    grep -q '^State:.T' /proc/$pid/status || { cat /proc/$pid/status; return 1; }
    for time in 1 2; do
        armrest verify -D /images/$name -t $pid >/tmp/verify || { cat /tmp/verify; return 1; }
        grep -q '^State:.T' /proc/$pid/status || { cat /proc/$pid/status; return 1; }
    done
    cat /tmp/verify
}

# goes_on NAME: a stopped sample runs for $run microseconds (half a second), is ended, and says PASS.
goes_on() {
    pid=$(root_pid $1)
    log=/samples/run/$1/out.log
    kill -CONT $pid || return 1
    usleep ${run:-500000}
    kill -TERM $pid || return 1
    gone $pid || return 1
    tail -n 3 $log
    [ "$(tail -n 1 $log)" = PASS ] || slack_alone $1
}

# stopped PID: stops it, and waits until it has stopped, 10 s at most.
stopped() {
    kill -STOP $1 || return 1
    for i in $(seq 1000); do
        ! grep -q '^State:.[Tt]' /proc/$1/status || return 0
        usleep 10000
    done
    echo "process $1 does not stop"
    return 1
}

# later_than SECONDS: waits until the machine has been up that long: CLOCK_MONOTONIC of the checkpoint is not kept.
later_than() { until [ $(cut -d. -f1 /proc/uptime) -gt $1 ]; do sleep 1; done; }

# edited SAMPLE NAME: restores the derived checkpoint in an IPC namespace of its own, stops the task, compares it with
# its images, lets it go on and ends it. What the program says of it is in its log.
edited() {
    unshare -i sh -eu -c '. /vm/lib.sh; compared "$1" "$2"' sh $1 $1+$2
}

# compared SAMPLE IMAGES: the same in this namespace.
compared() {
    put_files $1
    pid=$(root_pid $2)
    armrest restore -D /images/$2 -d -s || return 1
    status=0
    armrest verify -D /images/$2 -t $pid >/tmp/verify || status=$?
    cat /tmp/verify
    kill -CONT $pid || return 1
    usleep 200000
    kill -TERM $pid || return 1
    gone $pid || return 1
    tail -n 3 /samples/run/$1/out.log
    return $status
}

# no COMMAND…: it must fail. `! COMMAND` alone never ends a script of `sh -e`, so the list of tests refuses it.
no() { ! "$@"; }

# compared_tree NAME: restores the tree and compares all tasks with their images while they run, then ends it: PASS.
compared_tree() {
    put_files $1
    pid=$(root_pid $1)
    armrest restore -D /images/$1 -d || return 1
    armrest verify -D /images/$1 -t $pid --allow-ran >/tmp/verify || { cat /tmp/verify; return 1; }
    tail -n 1 /tmp/verify
    kill -TERM $pid || return 1
    gone $pid || return 1
    [ "$(tail -n 1 /samples/run/$1/out.log)" = PASS ]
}

# stopped_tree NAME [OPTION…]: restores the tree, each task stopped before its first instruction, compares all with their
# images, registers too, lets those go on that were not stopped, ends it: PASS.
stopped_tree() {
    stopped_there "$@" >/tmp/out || { cat /tmp/out; return 1; }
    tail -n 1 /tmp/verify
    no grep 'not stopped' /tmp/verify || return 1
    pid=$(root_pid $1)
    armrest x /images/$1 ps | awk '$1 ~ /^[0-9]+$/ && !/stopped\)$/ { print $1 }' >/tmp/pids
    kill -CONT $(cat /tmp/pids) || return 1
    usleep 500000
    kill -TERM $pid || return 1
    gone $pid || return 1
    tail -n 3 /samples/run/$1/out.log
    [ "$(tail -n 1 /samples/run/$1/out.log)" = PASS ]
}

# relatives 'PID…' NUMBER [COMMAND…]: restores `workers` with these tasks in the descriptor table of that number, by that
# command, and wants what `verify` and the program itself want. CRIU dumps only tables that a task has from its parent; all
# of this sample hold the same, so the images alone can say that siblings share one.
relatives() {
    pids=$1 number=$2
    shift 2
    put_files workers
    rm -rf /tmp/relatives
    mkdir /tmp/relatives
    cp /images/workers/*.img /tmp/relatives/
    for pid in $pids; do
        # It lies behind two magic numbers, a length, and the number of the address space.
        printf "\\00$number" | dd of=/tmp/relatives/ids-$pid.img bs=1 seek=15 conv=notrunc 2>/dev/null
    done
    "$@" armrest restore -D /tmp/relatives -d >/tmp/said 2>&1 || { cat /tmp/said; return 1; }
    armrest verify -D /tmp/relatives -t 401 --allow-ran >/tmp/verify || true
    tail -n 1 /tmp/verify
    kill -TERM 401
    gone 401 || return 1
    ! grep '^differs' /tmp/verify | grep -v "${differs:-^$}" || return 1
    [ "$(tail -n 1 /samples/run/workers/out.log)" = PASS ]
}

# left_of NAME: what a failed restore of it could leave: files, segments, processes.
left_of() {
    ls -R /tmp /samples/run
    cut -c1-22 /proc/sysvipc/shm
    for p in /proc/[0-9]*; do
        case $(cat $p/comm 2>/dev/null) in armrest | $1) grep -q '^State:.[ZX]' $p/status 2>/dev/null || cat $p/stat ;; esac
    done 2>/dev/null
}

# as_before NAME BEFORE: nothing is left of it, 2 s later at most.
as_before() {
    for i in $(seq 20); do
        after=$(left_of $1)
        [ "$2" != "$after" ] || return 0
        usleep 100000
    done
    echo "left behind:"
    echo "$2" >/root/before
    echo "$after" | diff /root/before -
    return 1
}

# taken_in_tree NAME PID…: each pid is taken in turn; the error names it, and nothing is left.
taken_in_tree() {
    name=$1
    shift
    put_files $name
    before=$(left_of $name)
    for pid; do
        echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid
        sleep 100 &
        [ $! = $pid ] || { echo "sleep: pid $!, not $pid"; return 1; }
        # What comes now must not take another pid of the tree.
        echo 1000 >/proc/sys/kernel/ns_last_pid
        usleep 100000
        status=0
        said=$(armrest restore -D /images/$name -d 2>&1) || status=$?
        echo "$status: $(echo "$said" | grep -m 1 taken)"
        [ $status = 98 ] && echo "$said" | grep -q "^armrest: ids: pid $pid: taken by \"sleep\"" || { echo "$said"; return 1; }
        kill -KILL $pid
        wait $pid || true
        as_before $name "$before" || return 1
    done
}
