#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for the time given.
set -euo pipefail
time=${1:?usage: fuzz.sh DURATION}
go=${GO:-go}
ran=0
for package in $("$go" list ./...); do
	# The list is taken by itself, so that a package that does not build fails
	# here and does not look like one without targets.
	listed=$("$go" test -list '^Fuzz' "$package")
	for target in $(grep '^Fuzz' <<<"$listed" || true); do
		echo "== $package $target"
		"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
		ran=$((ran + 1))
	done
done
[ "$ran" -gt 0 ] || { echo "no fuzz target was found" >&2; exit 1; }
