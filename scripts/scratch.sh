# Sourced: where labs of real servers go. Memory when there is enough of it, as their files are
# written once and thrown away; else $TMPDIR or /tmp.
scratch() {
    local free
    if [[ -z ${TMPDIR-} && -w /dev/shm ]]; then
        free=$(df --output=avail -k /dev/shm | tail -n 1)
        if ((free > 4 * 1024 * 1024)); then
            echo /dev/shm
            return
        fi
    fi
    echo "${TMPDIR:-/tmp}"
}
