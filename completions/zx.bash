# bash completion of zx, made by zx itself. It asks `zx __complete` for the candidates.
# Wants bash 4; $ZX_COMPLETE_TIMEOUT is the longest wait in seconds.

_zx() {
    local line=${COMP_LINE:0:COMP_POINT} current value prefix= i
    local -a words lines limit
    # COMP_WORDS is broken at = and :, zx wants the words whole.
    read -a words <<< "$line"
    [[ $line == *[[:space:]] && $line != *\\[[:space:]] ]] && words+=('')
    for i in "${!words[@]}"; do
        words[i]=${words[i]#[\"\']}
        words[i]=${words[i]%[\"\']}
    done
    current=${words[-1]}

    command -v timeout > /dev/null && limit=(timeout "${ZX_COMPLETE_TIMEOUT:-0.3}")
    mapfile -t lines < <("${limit[@]}" zx __complete -- "${words[@]:1}" 2> /dev/null)

    # Where = breaks words, readline replaces only what follows it.
    value=$current
    if [[ $current == --*=* ]]; then
        value=${current#*=}
        prefix=${current%%=*}=
        lines=("${lines[@]#"$prefix"}")
        [[ $COMP_WORDBREAKS == *=* ]] && prefix=
    fi

    COMPREPLY=()
    case ${lines[0]-} in
        :file)
            compopt -o filenames 2> /dev/null
            mapfile -t lines < <(compgen -f -- "$value")
            ;;
        :dir)
            compopt -o filenames 2> /dev/null
            mapfile -t lines < <(compgen -d -- "$value")
            ;;
        *)
            compopt -o nosort 2> /dev/null
            ;;
    esac
    for line in "${lines[@]}"; do
        [[ -n $line ]] && COMPREPLY+=("$prefix${line%%$'\t'*}")
    done
}

complete -F _zx zx
