#compdef chantal
# Completion of chantal for zsh: a file _chantal in a folder of $fpath, or
# sourced after compinit.

_chantal() {
	local line word
	local -a candidates
	for line in "${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		word=${line%%$'\t'*}
		case $word in
		:files) _files ;;
		:folders) _files -/ ;;
		?*)
			if [[ $line == *$'\t'* ]]; then
				candidates+=("${word//:/\\:}:${line#*$'\t'}")
			else
				candidates+=("${word//:/\\:}")
			fi
			;;
		esac
	done
	(( ${#candidates} )) && _describe -t chantal 'chantal' candidates
}

if [[ ${funcstack[1]} == _chantal ]]; then
	_chantal "$@"
else
	compdef _chantal chantal
fi
