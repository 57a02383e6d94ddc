#!/usr/bin/env bash
# Installs what the tests need beside Go: a C compiler for the race detector,
# the real clients, and a virtual environment (first argument) with pip and uv.
# What is there already is left alone, so that a second run needs no network.
set -euo pipefail
venv=${1:?usage: test-deps.sh VENV}

declare -A package=(
	[gcc]=gcc [dnf]=dnf [createrepo_c]=createrepo-c [apt-ftparchive]=apt-utils [rpm]=rpm [rpmbuild]=rpm
	[gpg]=gnupg [gpgv]=gpgv [xz]=xz-utils [zstd]=zstd [bzip2]=bzip2 [curl]=curl [git]=git [dpkg-deb]=dpkg [zckdl]=zchunk
)
missing=()
for program in "${!package[@]}"; do
	PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
[ -e /usr/lib/python3/dist-packages/dnf-plugins/download.py ] || missing+=(dnf-plugins-core)
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" -ne 0 ]; then
		echo "missing for the tests; install as root: apt-get install ${missing[*]}" >&2
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q update
	apt-get -q install -y --no-install-recommends "${missing[@]}"
fi

if ! { [ -x "$venv/bin/pip" ] && [ -x "$venv/bin/uv" ]; }; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check --upgrade pip uv
fi
