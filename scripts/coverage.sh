#!/usr/bin/env bash
# How much of src/ do the tests run? Prints a table per folder, then the files with the most lines that nothing runs (gcc's gcov, read by gcovr).
#
#   scripts/coverage.sh                           all tests but chaos
#   scripts/coverage.sh -L 'unit|component'       or whatever else ctest takes
#   scripts/coverage.sh --report                  the table once more, of what has run so far
#
# A process that is killed, or stopped by a failpoint, writes down nothing: what it ran counts only if another has run it too. Below build-coverage/report/
# every line is shown.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-coverage

run() {
    scripts/deps.sh build run test browser coverage
    cmake --preset coverage >"$build.log" 2>&1 && cmake --build --preset coverage --parallel "$(nproc)" >>"$build.log" 2>&1 || {
        tail -n 30 "$build.log" >&2
        echo "coverage: the build does not go through" >&2
        exit 2
    }
    rm -f "$build.log"
    find "$build" -name '*.gcda' -delete
    (cd "$build" && ctest --parallel "$(nproc)" --timeout 600 "$@") || echo "coverage: some tests failed; what they ran counts all the same" >&2
}

report() {
    local errors=$build/gcovr.log
    mkdir -p "$build/report"
    gcovr --root . --filter src/ --object-directory "$build" --json-summary-pretty --json-summary "$build/report/summary.json" \
        --html-details "$build/report/index.html" "$build" 2>"$errors" || { cat "$errors" >&2; exit 2; }
    python3 - "$build/report/summary.json" <<'PYTHON'
import collections, json, os, sys

files = [f for f in json.load(open(sys.argv[1]))["files"] if f["line_total"]]
folders = collections.defaultdict(lambda: [0] * 4)
for file in files:
    for name in (os.path.dirname(file["filename"]), "all"):
        for i, key in enumerate(("line_covered", "line_total", "branch_covered", "branch_total")):
            folders[name][i] += file[key]
print(f"{'folder':16}{'lines':>8}{'run':>8}{'':>8}{'branches taken':>16}")
for name, (lines, of, branches, of_branches) in sorted(folders.items(), key=lambda item: (item[0] == "all", item[0])):
    print(f"{name:16}{of:8}{lines:8}{lines / of:8.1%}{branches / max(of_branches, 1):16.1%}")
print("\nmost lines that nothing runs:")
for file in sorted(files, key=lambda f: f["line_covered"] - f["line_total"])[:15]:
    print(f"{file['line_total'] - file['line_covered']:6} of {file['line_total']:4}  {file['filename']}")
PYTHON
}

case ${1:-} in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" ;;
    --report) report ;;
    *)
        [[ $# -gt 0 ]] || set -- -LE chaos
        run "$@"
        report
        ;;
esac
