# fish completion of zx, made by zx itself. It asks `zx __complete` for the candidates.
# $ZX_COMPLETE_TIMEOUT is the longest wait in seconds.

function __zx_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l current (commandline -ct)
    set -l lines
    if command -q timeout
        set -l limit 0.3
        set -q ZX_COMPLETE_TIMEOUT; and set limit $ZX_COMPLETE_TIMEOUT
        set lines (timeout $limit zx __complete -- $words "$current" 2>/dev/null)
    else
        set lines (zx __complete -- $words "$current" 2>/dev/null)
    end
    set -q lines[1]; or return

    set -l prefix (string match -r -- '^--[^=]*=' "$current")
    set -l value (string replace -r -- '^--[^=]*=' '' "$current")
    switch $lines[1]
        case :file
            for path in (__fish_complete_path "$value")
                echo "$prefix$path"
            end
        case :dir
            for path in (__fish_complete_directories "$value")
                echo "$prefix$path"
            end
        case '*'
            string join \n -- $lines
    end
end

complete -c zx -f -k -a '(__zx_complete)'
