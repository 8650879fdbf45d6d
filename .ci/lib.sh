# Shared by .ci/run, .ci/full and the steps: running a step, keeping its time and outcome, and the closing table.
# A step is an executable file. Its status says what became of it: 0 passed, 3 not (wholly) run, anything else failed.

# No step may take longer than this; a hung test then fails by name instead of eating the whole run's time.
STEP_LIMIT=${STEP_LIMIT:-45m}

# Reads the environment once, so that the steps behave alike on a terminal and without one.
prepare() {
    export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
    ulimit -Sn "$(ulimit -Hn)" # the streams of the larger tests need more descriptors than the usual 1,024
    # Programs of the documents and examples run with the user's configuration: with one that leaves this machine's router alone.
    export XDG_CONFIG_HOME=$PWD/examples/tests/config
    logs=$(mktemp -d)
    trap 'rm -rf "$logs"' EXIT
    rows=()
    failed=0
    not_run=0
    SECONDS=0
}

# The step files of a directory in order: all of them, or those named, without number, in the other arguments.
select_steps() {
    local directory=$1 name file found
    shift
    if ((!$#)); then
        printf '%s\n' "$directory"/[0-9]*
        return
    fi
    for name in "$@"; do
        found=no
        for file in "$directory"/[0-9]*-"$name"; do
            [[ -e $file ]] && found=yes && echo "$file"
        done
        [[ $found == yes ]] || { echo "no step named $name in $directory" >&2; return 2; }
    done
}

# Runs one step and notes its time and outcome.
run_step() {
    local step=$1 name begin=$SECONDS status=0 outcome
    name=$(basename "$step")
    printf '\n== %s\n' "$name"
    in_session "$step" "$logs/$name.session" 2>&1 | tee "$logs/$name" || status=${PIPESTATUS[0]}
    case $status in
        0) outcome=passed ;;
        3) outcome='not run' not_run=$((not_run + 1)) ;;
        124 | 137) outcome="failed (over $STEP_LIMIT)" failed=$((failed + 1)) ;;
        *) outcome="failed (status $status)" failed=$((failed + 1)) ;;
    esac
    rows+=("$(printf '%-24s %6d s  %s' "$name" $((SECONDS - begin)) "$outcome")")
}

# Runs a command in a session of its own and then ends what it left running there.
in_session() {
    local command=$1 session_file=$2 status=0
    setsid --wait timeout --kill-after=10 "$STEP_LIMIT" \
        bash -c 'cut -d " " -f 6 /proc/$$/stat >"$2"; exec "$1"' - "$command" "$session_file" </dev/null || status=$?
    pkill -KILL --session "$(<"$session_file")" && echo "ended what $(basename "$command") left running"
    return "$status"
}

# The closing table, what was not run, and last the tests' count.
finish() {
    printf '\n== steps\n'
    printf '%s\n' "${rows[@]}"
    printf '%-24s %6d s\n' total "$SECONDS"
    grep -h '^NOT RUN: ' "$logs"/* || true
    grep -hE '^test [^ ].* \.\.\. FAILED$' "$logs"/* | sort -u || true
    count_tests
    if ((failed)); then exit 1; fi
    if ((not_run)); then exit 3; fi
}

# Adds up the result lines of every test binary and of the doc tests.
count_tests() {
    { cat "$logs"/*-tests 2>/dev/null || true; } | awk '
        /^test result: / {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) passed += $(i - 1)
                if ($i ~ /^failed/) failed += $(i - 1)
                if ($i ~ /^ignored/) skipped += $(i - 1)
            }
        }
        END {
            printf "%d passed, %d failed", passed, failed
            if (skipped) printf ", %d skipped", skipped
            printf "\n"
        }'
}
