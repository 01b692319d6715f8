#!/usr/bin/env bash
# Checks the #include lines under src/ and include/doorbuster/ against the arrows of the house:
#   server, cli → api → gate, store, auth → redis, sale, metrics → base; http → base; api → http.
# and auth → store. Prints one line for each arrow that points elsewhere, and exits 1 if there is one.
# Needs bash and awk, nothing else.
set -euo pipefail
shopt -s nullglob globstar
cd "${1:-"$(dirname "$0")/.."}"

files=(src/**/*.[ch])
headers=(include/doorbuster/*.h)
if [ ${#files[@]} -eq 0 ]; then
    echo "layers: no files under src/" >&2
    exit 2
fi

exec awk -v headers="${headers[*]}" -v src="${files[*]}" '
BEGIN {
    # Which folder a header in include/doorbuster/ belongs to. A trailing * stands for any ending; the first
    # match counts.
    owners = "check:base log:base clock:base text:base json:base work_pool:base process:base settings:base failpoint:base" \
             " breaker:base rate_limit:base idempotency_key:sale order:sale sales_log:sale sale*:sale change:sale product:sale selling:sale metrics:metrics board:metrics redis*:redis private_redis:redis http:http store:store" \
             " jwt:auth password:auth gate*:gate node_books:gate api*:api books:api"
    owner_count = split(owners, owner_list, " ")

    # What each folder may include, itself aside.
    below["base"] = ""
    below["sale"] = "base"
    below["metrics"] = "base"
    below["redis"] = "base"
    below["http"] = "base"
    below["store"] = "sale redis metrics base"
    below["auth"] = "store sale redis metrics base"
    below["gate"] = "sale redis metrics base"
    below["api"] = "gate store auth http redis sale metrics base"
    below["server"] = "api gate store auth http redis sale metrics base"
    below["cli"] = below["server"]

    # The rules of the sale do no I/O, so they know the C standard library and little else.
    standard = " assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal" \
               " stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath" \
               " threads time uchar wchar wctype "
    sale_of_base = " check text "

    header_count = split(headers, header_list, " ")
    for (i = 1; i <= header_count; i++) {
        name = header_list[i]
        sub(/^.*\//, "", name)
        sub(/\.h$/, "", name)
        if (owner(name) == "")
            complain(header_list[i] ": belongs to no folder; add it to the table in scripts/layers.sh")
    }
    file_count = split(src, file_list, " ")
    for (i = 1; i <= file_count; i++)
        exists[file_list[i]] = 1
}

function complain(text) {
    print "layers: " text > "/dev/stderr"
    faults++
}

function owner(name,    i, pair, stem) {
    for (i = 1; i <= owner_count; i++) {
        split(owner_list[i], pair, ":")
        stem = pair[1]
        if (stem == name || (sub(/\*$/, "", stem) && index(name, stem) == 1))
            return pair[2]
    }
    return ""
}

# embedded.h is made at build time by cmake/embed.cmake, for the folder that includes it.
function is_private_to_folder(header) {
    return header == "embedded.h" || (directory "/" header) in exists || ("src/" folder "/" header) in exists
}

function may(from, to) {
    return from == to || index(" " below[from] " ", " " to " ") > 0
}

FNR == 1 {
    split(FILENAME, parts, "/")
    directory = FILENAME
    sub(/\/[^\/]*$/, "", directory)
    folder = parts[1] == "src" ? parts[2] : owner(substr(parts[3], 1, length(parts[3]) - 2))
    if (folder != "" && !(folder in below))
        complain(FILENAME ": src/" folder " is no folder of the house")
}

/^[ \t]*#[ \t]*include/ && folder != "" {
    includes++
    where = FILENAME ":" FNR ": "
    if (!match($0, /[<"][^>"]+[>"]/)) {
        complain(where "cannot read this #include")
        next
    }
    quote = substr($0, RSTART, 1)
    header = substr($0, RSTART + 1, RLENGTH - 2)
    stem = header
    sub(/\.h$/, "", stem)

    if (sub(/^doorbuster\//, "", stem)) {
        to = owner(stem)
        if (to == "")
            complain(where header " belongs to no folder; add it to the table in scripts/layers.sh")
        else if (!may(folder, to))
            complain(where folder " must not include " header ", which belongs to " to)
        else if (folder == "sale" && to == "base" && index(sale_of_base, " " stem " ") == 0)
            complain(where "sale does no I/O: of base it may include check.h and text.h, not " header)
    } else if (quote == "\"") {
        if (index(header, "/") > 0)
            complain(where "\"" header "\": a private header is included by its bare name, from its folder")
        else if (!is_private_to_folder(header))
            complain(where "\"" header "\" is not in src/" folder \
                     "; another folder may call only what is in include/doorbuster/")
    } else if (folder == "sale" && index(standard, " " stem " ") == 0) {
        complain(where "sale includes the headers of the C standard only, not <" header ">")
    }
}

END {
    if (faults > 0) {
        printf "layers: %d fault%s in %d files, %d includes\n", faults, faults == 1 ? "" : "s", \
               file_count + header_count, includes > "/dev/stderr"
        exit 1
    }
    printf "layers: %d files, %d includes, all arrows point down\n", file_count + header_count, includes
}
' "${files[@]}" "${headers[@]}"
