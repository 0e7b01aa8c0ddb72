# shellcheck shell=bash
# Other scripts in this folder source this file. It installs the tools for cross-compilation from PyPI into
# target/tools: maturin builds wheels, and zig is a C compiler and linker for any Linux. Needs python3 with venv.
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." || exit 1
if ! cmp --silent packaging/tools.txt target/tools/python/tools.txt; then
  python3 -m venv target/tools/python
  target/tools/python/bin/pip install --quiet --disable-pip-version-check --requirement packaging/tools.txt
  cp packaging/tools.txt target/tools/python/
fi
export PATH=$PWD/target/tools/python/bin:$PATH
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# The timestamp in all generated files, so that the same commit gives the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
# Keep the paths of this computer out of the program.
export RUSTFLAGS="--remap-path-prefix=$PWD=cfdfu --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
dist=target/dist
mkdir -p $dist

linux_x86=x86_64-unknown-linux-musl
linux_arm=aarch64-unknown-linux-musl
windows=x86_64-pc-windows-gnu

# sorted_target_dir: lets cargo build in target/ under a temporary name in /tmp. GNU ld sorts the import tables of a
# Windows program by the paths of the program's libraries, which are below target/, below ~/.cargo, and below /usr.
# Without the temporary name, the bytes of the program would depend on whether the path of the checkout sorts before
# /usr.
sorted_target_dir() {
  CARGO_TARGET_DIR=/tmp/cfdfu-$(id -u)-$(printf %s "$PWD" | sha256sum | head -c 12)
  export CARGO_TARGET_DIR RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$CARGO_TARGET_DIR=cfdfu/target"
  [ -L "$CARGO_TARGET_DIR" ] || ln -s "$PWD/target" "$CARGO_TARGET_DIR"
  # Any user can create a link in /tmp.
  [ "$(readlink "$CARGO_TARGET_DIR")" = "$PWD/target" ] || { echo "$CARGO_TARGET_DIR links elsewhere" >&2 && exit 1; }
  trap 'rm -f "$CARGO_TARGET_DIR"' EXIT
}

# write_extras FOLDER: writes the files that accompany the program: the manual page, the completions and the udev rules.
# The release build of the static program for x86_64, which runs on this computer, prints their contents.
write_extras() {
  local program shell
  program=$(binary_path $linux_x86 release)
  mkdir -p "$1/completions"
  "$program" man >"$1/cfdfu.1"
  for shell in bash:cfdfu.bash zsh:_cfdfu fish:cfdfu.fish; do
    "$program" completions "${shell%:*}" >"$1/completions/${shell#*:}"
  done
  "$program" udev >"$1/70-cfdfu.rules"
}

# binary_path TARGET PROFILE: prints the path of the program built for TARGET with PROFILE.
binary_path() {
  local suffix=
  [ "$1" = $windows ] && suffix=.exe
  echo "target/$1/$2/cfdfu$suffix"
}
