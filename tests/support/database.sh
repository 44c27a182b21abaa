#!/usr/bin/env bash
# A database server of its own for a test: on a socket in a temporary folder, gone with its caller.
#
#   database.sh postgres|mariadb
#
# Answers a line with the URL of its administrator, without the database's name, when it is ready.
# Then takes lines: `stop` ends the server at once, as a crash does, and answers `stopped`; `start`
# starts it again and answers `ready`. When standard input ends, server and folder are removed.
# Ends with code 3 where the server's program is not installed. Nothing here survives the machine (no fsync), but
# what was committed survives the server.
set -euo pipefail

kind=$1
dir=$(mktemp -d "${TMPDIR:-/tmp}/glint-$kind.XXXXXX")
server=
finish() {
    crash
    rm -rf "$dir"
}
# PostgreSQL's processes are ended by their parent, so that one is asked to; nobody says goodbye.
crash() {
    if [ -n "$server" ]; then
        case $kind in postgres) kill -QUIT "$server" ;; *) kill -KILL "$server" ;; esac
        wait "$server" || true
        server=
    fi 2>/dev/null
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

# Servers do not run as root: the packages bring users for them.
as=()
if [ "$(id -u)" -eq 0 ]; then
    case $kind in postgres) user=postgres ;; *) user=mysql ;; esac
    id -u "$user" >/dev/null 2>&1 || exit 3
    as=(setpriv --reuid "$user" --regid "$user" --clear-groups)
    chown "$user" "$dir"
fi
cd "$dir"

case $kind in
    postgres)
        bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n1)
        [ -x "$bin/initdb" ] || exit 3
        init() {
            "${as[@]}" "$bin/initdb" --no-sync --no-instructions -A trust -U glint -E UTF8 \
                --locale=C.UTF-8 -D "$dir/data"
        }
        launch() {
            exec "${as[@]}" "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= \
                -c fsync=off -c full_page_writes=off \
                -c max_connections=300 -c shared_buffers="${GLINT_DATABASE_MEMORY:-64}MB"
        }
        answers() { "$bin/pg_isready" -q -h "$dir" -U glint -d postgres; }
        socket=${dir//\//%2F}
        url="postgres://glint@$socket/"
        ;;
    mariadb)
        PATH=$PATH:/usr/sbin
        command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || exit 3
        init() {
            "${as[@]}" mariadb-install-db --no-defaults --datadir="$dir/data" --skip-test-db \
                --auth-root-authentication-method=normal --innodb-flush-method=nosync
        }
        launch() {
            exec "${as[@]}" mariadbd --no-defaults --datadir="$dir/data" --socket="$dir/socket" \
                --pid-file="$dir/pid" --skip-networking --skip-log-bin --max-connections=300 \
                --innodb-flush-log-at-trx-commit=2 --innodb-flush-method=nosync \
                --innodb-buffer-pool-size="${GLINT_DATABASE_MEMORY:-64}M"
        }
        answers() { mariadb-admin --no-defaults -S "$dir/socket" -u root ping >/dev/null 2>&1; }
        url="mysql://root@localhost/?socket=$dir/socket"
        ;;
    *) echo "no server is called $kind" >&2; exit 2 ;;
esac

start() {
    launch >>"$dir/log" 2>&1 </dev/null &
    server=$!
    for _ in $(seq 600); do
        if answers; then return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    cat "$dir/log" >&2
    return 1
}

init >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
start
echo "$url"
while read -r line; do
    case $line in
        stop) crash; echo stopped ;;
        start) start; echo ready ;;
    esac
done
