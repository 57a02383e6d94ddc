#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for the time given.
#
# When the time ends while an input is being tried, Go's fuzzer at times reports
# its own deadline as a failure ("context deadline exceeded", and no input): that
# is the end of the time and no finding. Findings come with an input that fails,
# hangs as "hung or terminated unexpectedly".
set -euo pipefail
time=${1:?usage: fuzz.sh DURATION}
go=${GO:-go}
ran=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() {
	"$go" test -run '^$' -fuzz "^$2\$" -fuzztime "$time" "$1" 2>&1 | tee "$log" && return
	grep -qE '^ +context deadline exceeded$' "$log" &&
		! grep -qE 'Failing input|terminated unexpectedly|panic|DATA RACE' "$log"
}

for package in $("$go" list ./...); do
	# The list is taken by itself, so that a package that does not build fails
	# here and does not look like one without targets.
	listed=$("$go" test -list '^Fuzz' "$package")
	for target in $(grep '^Fuzz' <<<"$listed" || true); do
		echo "== $package $target"
		fuzz "$package" "$target"
		ran=$((ran + 1))
	done
done
[ "$ran" -gt 0 ] || { echo "no fuzz target was found" >&2; exit 1; }
