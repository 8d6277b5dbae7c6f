#!/bin/sh
# Builds the objects from their sources; with --check proves that the checked-in objects are what the sources compile to.
#
# The same clang gives the same bytes. Another clang major may lay out BTF and ELF differently, or choose other
# instructions: then --check compares the instructions. It fails with 1 when the clang that wrote the objects
# (CLANG_VERSION) now makes other instructions of a source, with 2 when another clang does, which proves nothing.
set -eu
cd "$(dirname "$0")"
CLANG=${CLANG:-clang}
STRIP=${LLVM_STRIP:-llvm-strip}
OBJDUMP=${LLVM_OBJDUMP:-llvm-objdump}
OBJECTS="steer steer_hw steer_hw_twin"

version() {
    "$CLANG" --version | sed -n 's/.*clang version \([0-9]*\).*/\1/p' | head -n 1
}

# compile NAME OBJECT
compile() {
    case $1 in
    steer) source=steer.c flags=-mcpu=v3 ;;
    # The card's compiler takes the first instruction set for sure.
    steer_hw) source=steer_hw.c flags=-mcpu=v1 ;;
    steer_hw_twin) source=steer_hw.c flags="-mcpu=v1 -DTWIN" ;;
    esac
    # -fdebug-prefix-map and a relative file name keep the machine's paths out of the object;
    # stripping drops DWARF and keeps BTF, which describes the maps.
    # shellcheck disable=SC2086 # flags are words
    "$CLANG" -O2 -g -target bpf $flags -Wall -Wextra -Werror -Wno-unused-function \
        -fdebug-prefix-map="$PWD"=. \
        -I"/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$2"
    "$STRIP" --strip-debug "$2"
}

instructions() {
    "$OBJDUMP" --disassemble --no-show-raw-insn "$1" | sed '1,/^Disassembly/d'
}

# check NAME: 0, 1 or 2 as above.
check() {
    compile "$1" "$scratch/$1.o"
    if cmp -s "$scratch/$1.o" "$1.o"; then
        echo "$1.o matches its source (clang $(version), byte for byte)"
        return 0
    fi
    instructions "$1.o" >"$scratch/checked-in"
    instructions "$scratch/$1.o" >"$scratch/compiled"
    if diff -u "$scratch/checked-in" "$scratch/compiled" >"$scratch/diff"; then
        echo "$1.o matches its source (clang $(version), same instructions)"
        return 0
    fi
    if [ "$(version)" != "$(cat CLANG_VERSION)" ]; then
        echo "$1.o was built by clang $(cat CLANG_VERSION), here is clang $(version): instructions differ, nothing is proved" >&2
        return 2
    fi
    cat "$scratch/diff" >&2
    echo "$1.o does not match its source: run flextcp-nic/bpf/build.sh and commit the result" >&2
    return 1
}

case "${1:-}" in
--check)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    worst=0
    for name in $OBJECTS; do
        status=0
        check "$name" || status=$?
        # A proven mismatch counts more than one that proves nothing.
        [ "$status" -eq 0 ] || [ "$worst" -eq 1 ] || worst=$status
    done
    exit "$worst"
    ;;
"")
    for name in $OBJECTS; do
        compile "$name" "$name.o"
    done
    version >CLANG_VERSION
    ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac
