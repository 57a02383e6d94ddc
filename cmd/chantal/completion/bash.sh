# Completion of chantal for bash: source this file.

_chantal() {
	# Words as they are written: bash would split them at "@", ":" and "=".
	local line=${COMP_LINE:0:COMP_POINT} candidate current
	local -a words
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	current=${words[-1]}
	COMPREPLY=()
	while IFS=$'\t' read -r candidate _; do
		case $candidate in
		:files | :folders)
			compopt -o filenames
			local kind=-f
			[[ $candidate == :folders ]] && kind=-d
			mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen "$kind" -- "${current#--*=}")
			;;
		?*) COMPREPLY+=("$candidate") ;;
		esac
	done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
	# What bash takes for an earlier word is there already. A word begins behind
	# "=" and ":", and with "@".
	local break begin
	for break in = : @; do
		if [[ $COMP_WORDBREAKS == *"$break"* && $current == *"$break"* ]]; then
			begin=${current%"$break"*}
			[[ $break == @ ]] || begin+=$break
			COMPREPLY=("${COMPREPLY[@]#"$begin"}")
			current=${current#"$begin"}
		fi
	done
}

complete -F _chantal chantal
