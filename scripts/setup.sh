# Sourced by scripts/novad and scripts/test: makes .venv where it is missing or stale.
# The stamp holds what the environment was made from; comparing it costs a few milliseconds.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv="$root/.venv"

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "novad needs Python 3.11 or newer; none was found (set PYTHON to one)" >&2
    return 1
}

# setup EXTRA: an environment with the project, and with the test tools where EXTRA is "test".
setup() {
    local extra=$1 stamp="$venv/stamp-$1" made_from
    made_from="$root $(cat "$root/pyproject.toml" "$root/scripts/pins.txt" "$root/scripts/setup.sh" | cksum)"
    if [ -x "$venv/bin/novad" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$made_from" ]; then
        return
    fi
    (
        flock 9
        [ "$(cat "$stamp" 2>/dev/null)" = "$made_from" ] && [ -x "$venv/bin/novad" ] && exit 0
        python=$(find_python) || exit 1
        echo "setting up .venv with $("$python" --version) ..." >&2
        rm -f "$venv"/stamp-*
        "$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv"
        target="$root"
        [ "$extra" = run ] || target="$root[$extra]"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --constraint "$root/scripts/pins.txt" --editable "$target" >&2 || {
            echo "the installation failed; the lines above say why" >&2
            exit 1
        }
        [ "$extra" = run ] || echo "$made_from" > "$venv/stamp-run"
        echo "$made_from" > "$stamp"
    ) 9> "$root/.venv.lock" || exit 1
}
