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

# gone PID: waits until it has ended, 10 s at most.
gone() {
    for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do
        # A state of neither Z nor X: it lives. No such file: it is gone.
        grep -q '^State:.[^ZX]' /proc/$1/status 2>/dev/null || return 0
        usleep 500000
    done
    echo "process $1 is still there:"
    cat /proc/$1/status /proc/$1/wchan
    return 1
}

# root_pid NAME: the pid of the first process of the checkpoint.
root_pid() { armrest x /images/$1 ps | awk '$1 ~ /^[0-9]+$/ { print $1; exit }'; }

# restored NAME [OPTION…]: restores the sample where and as it was, lets it run, ends it, and wants its PASS.
restored() {
    name=$1
    shift
    put_files $name
    log=/samples/run/$name/out.log
    pid=$(root_pid $name)
    status=0
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
    sleep 1
    kill -TERM $pid || return 1
    gone $pid || return 1
    tail -n 3 $log
    [ "$(tail -n 1 $log)" = PASS ]
}
