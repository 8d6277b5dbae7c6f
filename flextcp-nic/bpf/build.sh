#!/bin/sh
# Builds steer.o from steer.c; with --check proves that the checked-in object is what steer.c compiles to.
#
# The same clang gives the same bytes. Another clang major may lay out BTF and ELF differently, or choose other
# instructions: then --check compares the instructions. It fails with 1 when the clang that wrote the object
# (CLANG_VERSION) now makes other instructions of steer.c, with 2 when another clang does, which proves nothing.
set -eu
cd "$(dirname "$0")"
CLANG=${CLANG:-clang}
STRIP=${LLVM_STRIP:-llvm-strip}
OBJDUMP=${LLVM_OBJDUMP:-llvm-objdump}

version() {
    "$CLANG" --version | sed -n 's/.*clang version \([0-9]*\).*/\1/p' | head -n 1
}

compile() {
    # -fdebug-prefix-map and a relative file name keep the machine's paths out of the object;
    # stripping drops DWARF and keeps BTF, which describes the maps.
    "$CLANG" -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-function \
        -fdebug-prefix-map="$PWD"=. \
        -I"/usr/include/$(uname -m)-linux-gnu" -c steer.c -o "$1"
    "$STRIP" --strip-debug "$1"
}

instructions() {
    "$OBJDUMP" --disassemble --no-show-raw-insn "$1" | sed '1,/^Disassembly/d'
}

case "${1:-}" in
--check)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    compile "$scratch/steer.o"
    if cmp -s "$scratch/steer.o" steer.o; then
        echo "steer.o matches steer.c (clang $(version), byte for byte)"
        exit 0
    fi
    instructions steer.o >"$scratch/checked-in"
    instructions "$scratch/steer.o" >"$scratch/compiled"
    if diff -u "$scratch/checked-in" "$scratch/compiled" >"$scratch/diff"; then
        echo "steer.o matches steer.c (clang $(version), same instructions)"
        exit 0
    fi
    if [ "$(version)" != "$(cat CLANG_VERSION)" ]; then
        echo "steer.o was built by clang $(cat CLANG_VERSION), here is clang $(version): instructions differ, nothing is proved" >&2
        exit 2
    fi
    cat "$scratch/diff" >&2
    echo "steer.o does not match steer.c: run flextcp-nic/bpf/build.sh and commit the result" >&2
    exit 1
    ;;
"")
    compile steer.o
    version >CLANG_VERSION
    ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac
