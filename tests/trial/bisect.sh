#!/bin/bash
# bisect.sh POISE [TRIES] [OPTION…]: how often `poise bisect` is right on this machine as it is.
# Each try makes a repository of 220 commits of a C program that writes to /dev/null, of which one,
# drawn, writes every tenth time twice: 10 % slower. The options go to poise bisect.
set -euo pipefail
poise=$(realpath "$1")
tries=${2:-10}
shift $(($# < 2 ? $# : 2))

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
export XDG_CACHE_HOME=$directory/cache GIT_CONFIG_GLOBAL=/dev/null

# The program from commit $1 on, $2 being where it gets slower.
source_of() {
	local again=''
	[ "$1" -lt "$2" ] || again='if (i % 10 == 0) write(null, block, sizeof block);'
	cat <<-C
		/* $1 */
		#include <fcntl.h>
		#include <unistd.h>
		int main(void)
		{
			static char block[512];
			int null = open("/dev/null", O_WRONLY);
			for (long i = 0; i < 200000; i++) {
				write(null, block, sizeof block);
				$again
			}
		}
	C
}

right=0 wrong=0 undecided=0
for try in $(seq "$tries"); do
	culprit=$((1 + RANDOM % 219))
	repository=$directory/repository
	rm -rf "$repository" "$directory/log" "$XDG_CACHE_HOME"
	git init --quiet --initial-branch=main "$repository"
	for place in $(seq 0 219); do
		text=$(source_of "$place" "$culprit")
		printf 'commit refs/heads/main\ncommitter Ann <ann@example.org> %d +0000\n' $((1700000000 + place))
		printf 'data <<END\ncommit %d\nEND\nM 100644 inline loop.c\ndata <<END\n%s\nEND\n' "$place" "$text"
	done | git -C "$repository" fast-import --quiet
	first=$(git -C "$repository" rev-list --max-parents=0 main)
	began=$SECONDS
	"$poise" bisect -q "$first..main" -C "$repository" --build 'cc -O1 -w -o loop loop.c' \
		--dir "$directory/log" "$@" -- ./loop >"$directory/said" || true
	said=$(head -n 1 "$directory/said")
	case $said in
	*"commit $culprit did it") right=$((right + 1)) verdict=right ;;
	*'did it') wrong=$((wrong + 1)) verdict=WRONG ;;
	*) undecided=$((undecided + 1)) verdict=undecided ;;
	esac
	cost=$(awk '$1 == "builds" || $1 == "runs" { printf ", %d %s", $2, $1 }' "$directory/said")
	echo "$try: $verdict in $((SECONDS - began)) s$cost: it was commit $culprit; $said"
done
echo "$right of $tries right, $wrong wrong, $undecided undecided"
