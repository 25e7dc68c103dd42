# shellcheck shell=bash
# ./dev fuzz: builds the targets of tests/fuzz with clang's libFuzzer and lets them run. Sourced by ./dev.

FUZZ_BUILD=build/libfuzzer
FUZZ_FINDS=build/fuzz

fuzz_usage()
{
    cat <<'EOF2'
usage: ./dev fuzz                    the targets, with the size of their corpora and what they are
       ./dev fuzz NAME [TIME]        look for inputs that break NAME: 60 s, or 300, 20m, 8h
       ./dev fuzz all [TIME]         every target after the other, TIME each
       ./dev fuzz NAME --merge       take those finds that reach something new into tests/fuzz/corpus/NAME
       ./dev fuzz NAME FILE...       run these inputs once
       ./dev fuzz events [STEPS [SEED]]  random orders of events over the whole proxy (tests/events): a million
                                     steps, some minutes, from a seed that it says

A target starts from tests/fuzz/corpus/NAME and what earlier runs found; new finds lie in build/fuzz/NAME,
what crashed in build/fuzz/NAME-crashes, with the command that runs it again. Ctrl-C ends a run early, and
nothing found is lost. FUZZFLAGS goes to libFuzzer: FUZZFLAGS="-fork=4 -max_len=20000" ./dev fuzz h1 8h
Needs clang with libFuzzer, which is installed where it is missing (group fuzz of tools/setup/packages.txt).
EOF2
}

fuzz_targets()
{
    sed -n "s/^  \['\([a-z0-9_]*\)', .*/\1/p" tests/fuzz/meson.build
}

# The first sentence of the comment at the top of a target.
fuzz_purpose()
{
    awk 'NR > 1 { sub(/^[ \/]*\* */, ""); end = sub(/ *\*\/.*/, ""); text = text " " $0; if (end) { exit } }
        END { sub(/^ +/, "", text); if (match(text, /[.:](  *|$)/)) { text = substr(text, 1, RSTART - 1) } print text }' \
        "tests/fuzz/fuzz_$1.c"
}

fuzz_list()
{
    local name files
    for name in $(fuzz_targets); do
        files=(tests/fuzz/corpus/"$name"/*)
        printf '%-15s %4d inputs  %s\n' "$name" ${#files[@]} "$(fuzz_purpose "$name")"
    done
    printf '%-15s             %s\n' events "Random orders of events over the whole proxy; its inputs are seeds"
    printf '\n./dev fuzz NAME [TIME] runs one; ./dev fuzz --help\n'
}

# fuzz_seconds TEXT: 300, 20m and 8h as seconds; fails for anything else.
fuzz_seconds()
{
    case $1 in
    *[!0-9smh]* | '' | [smh]*) return 1 ;;
    esac
    [[ $1 =~ ^([0-9]+)([smh]?)$ ]] || return 1
    case ${BASH_REMATCH[2]} in
    h) echo $((10#${BASH_REMATCH[1]} * 3600)) ;;
    m) echo $((10#${BASH_REMATCH[1]} * 60)) ;;
    *) echo $((10#${BASH_REMATCH[1]})) ;;
    esac
}

fuzz_build()
{
    local name targets=()
    for name in "$@"; do
        targets+=("tests/fuzz/fuzz_${name}_live")
    done
    CC=clang CXX=clang++ configure $FUZZ_BUILD -Dbuildtype=debugoptimized -Dfuzz=true \
        -Db_sanitize=address,undefined -Db_lundef=false
    compile $FUZZ_BUILD "${targets[@]}"
}

# What a crash needs to be looked at: fuzz_crashes NAME OLD-LIST.
fuzz_crashes()
{
    local name=$1 old=$2 file
    for file in "$FUZZ_FINDS/$name-crashes"/*; do
        [ -e "$file" ] || continue
        case $'\n'$old$'\n' in *$'\n'$file$'\n'*) continue ;; esac
        printf '   %s (%d bytes)\n' "$file" "$(stat -c %s "$file")"
        printf '      again:   ./dev fuzz %s %s\n' "$name" "$file"
        printf '      smaller: %s -minimize_crash=1 -runs=100000 %s\n' "$FUZZ_BUILD/tests/fuzz/fuzz_${name}_live" "$file"
    done
}

# fuzz_run NAME SECONDS: false when something crashed.
fuzz_run()
{
    local name=$1 seconds=$2 finds=$FUZZ_FINDS/$1 crashes=$FUZZ_FINDS/$1-crashes before old rc=0 flags=()
    local log=build/log/fuzz-$name.log
    mkdir -p "$finds" "$crashes" build/log
    [ -f "tests/fuzz/$name.dict" ] && flags+=("-dict=tests/fuzz/$name.dict")
    before=$(find "$finds" -type f | wc -l)
    old=$(find "$crashes" -type f)
    say "fuzz: $name for $seconds s, from tests/fuzz/corpus/$name and $before earlier finds; log in $log"
    # shellcheck disable=SC2086
    "$FUZZ_BUILD/tests/fuzz/fuzz_${name}_live" -max_total_time="$seconds" -artifact_prefix="$crashes/" \
        -timeout=20 -rss_limit_mb=2560 -print_final_stats=1 "${flags[@]}" ${FUZZFLAGS:-} \
        "$finds" "tests/fuzz/corpus/$name" 2>&1 | tee "$log" | fuzz_progress || rc=1
    if [ $rc -ne 0 ]; then
        tail -n 60 "$log"
        say "fuzz: $name CRASHED:"
        fuzz_crashes "$name" "$old"
        return 1
    fi
    say "fuzz: $name: nothing found in $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs;" \
        "$(($(find "$finds" -type f | wc -l) - before)) new inputs in $finds"
}

# A line every now and then of what libFuzzer says, on a terminal the last one in place.
fuzz_progress()
{
    if [ -t 1 ]; then
        awk '/^#[0-9]/ { printf "\r   %.100s\033[K", $0; fflush() } END { printf "\r\033[K" }'
    else
        awk '/^#[0-9]+.(INITED|pulse|DONE)/ { printf "   %.100s\n", $0; fflush() }'
    fi
}

fuzz_merge()
{
    local name=$1 corpus=tests/fuzz/corpus/$1 before
    [ -d "$FUZZ_FINDS/$name" ] || die "fuzz: nothing found yet for $name: ./dev fuzz $name"
    before=$(find "$corpus" -type f | wc -l)
    run_logged "fuzz merge $name" "$FUZZ_BUILD/tests/fuzz/fuzz_${name}_live" -set_cover_merge=1 "$corpus" "$FUZZ_FINDS/$name" ||
        die "fuzz: the merge failed: the reason is above"
    say "fuzz: $name: $(($(find "$corpus" -type f | wc -l) - before)) inputs more in $corpus"
}

fuzz_events()
{
    local steps=${1:-1000000} seed=${2:-$((RANDOM * 32768 + RANDOM))}
    [[ $steps =~ ^[0-9]+$ && $seed =~ ^[0-9]+$ ]] ||
        die "fuzz: events takes a number of steps and a seed, not '$*'" "see ./dev fuzz --help"
    setup build test
    configure_asan
    compile build/asan tests/events/events
    say "fuzz: events: $steps steps from seed $seed"
    build/asan/tests/events/events --config tests/events/config --steps "$steps" --seed "$seed" ||
        die "fuzz: events: a promise was broken: see above" "again: ./dev fuzz events $steps $seed" \
            "with what happened: build/asan/tests/events/events --config tests/events/config --trace and the numbers above"
}

cmd_fuzz()
{
    local name=${1:-} names seconds=60 failed=0
    case $name in
    events)
        shift
        fuzz_events "$@"
        return
        ;;
    '') fuzz_list; return ;;
    -h | --help) fuzz_usage; return ;;
    all) mapfile -t names < <(fuzz_targets) ;;
    *)
        fuzz_targets | grep -qx -- "$name" ||
            die "fuzz: no target named '$name'; there are: $(fuzz_targets | xargs) events"
        names=("$name")
        ;;
    esac
    shift
    if [ $# -gt 0 ] && [ "$1" != --merge ] && [ ! -e "$1" ]; then
        seconds=$(fuzz_seconds "$1") ||
            die "fuzz: '$1' is neither a time (300, 20m, 8h) nor a file nor --merge" "see ./dev fuzz --help"
        [ $# -eq 1 ] || die "fuzz: nothing may follow the time, but '$2' does" "see ./dev fuzz --help"
    fi
    setup build test fuzz
    fuzz_build "${names[@]}"
    export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1}
    export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
    for name in "${names[@]}"; do
        if [ "${1:-}" = --merge ]; then
            fuzz_merge "$name"
        elif [ $# -gt 0 ] && [ -e "$1" ]; then
            "$FUZZ_BUILD/tests/fuzz/fuzz_${name}_live" "$@"
        else
            fuzz_run "$name" "$seconds" || failed=1
        fi
    done
    [ $failed -eq 0 ] || die "fuzz: something crashed: see above"
}
