package traffic

import (
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/shunt-dev/shunt/test/netns"
)

//go:embed testdata/cancel.py
var cancelQueries string

// postgresProgram finds a program of Debian's PostgreSQL, which is not on PATH.
func postgresProgram(name string) (string, error) {
	const pattern = "/usr/lib/postgresql/*/bin/"
	found, err := filepath.Glob(pattern + name)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s%s: there is none", pattern, name)
	}
	if err != nil {
		return "", err
	}
	return found[len(found)-1], nil
}

// postgresCluster is the folder of an empty database, made once. Everybody may log in.
var postgresCluster = sync.OnceValues(func() (string, error) {
	initdb, err := postgresProgram("initdb")
	if err != nil {
		return "", err
	}
	ns, err := netns.New("initdb")
	if err != nil {
		return "", err
	}
	defer ns.Close()
	folder := filepath.Join(runFolder, "postgres")
	const script = `install -d -o "$1" -m 700 "$2" &&
		exec setpriv --reuid="$1" --regid="$1" --clear-groups -- "$3" -D "$2" -A trust --no-sync --locale=C`
	if out, err := root.command(context.Background(), ns, "sh", "-c", script, "sh", fmt.Sprint(app.id.UID), folder, initdb).
		CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return folder, nil
})

// postgresTrial cancels queries, and reads and writes large amounts.
func postgresTrial() trial {
	const port uint16 = 5432
	serve := func(t *testing.T, w *way) {
		cluster, err := postgresCluster()
		if err != nil {
			t.Fatal(err)
		}
		server, err := postgresProgram("postgres")
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join(app.folder(t, "postgres"), "data")
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", cluster, folder).CombinedOutput(); err != nil {
			t.Fatalf("copying %s: %v\n%s", cluster, err, out)
		}
		file(t, filepath.Join(folder, "pg_hba.conf"), "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
		app.daemon(t, w.serverHost(), port, server, "-D", folder, "-p", fmt.Sprint(port), "-c", "listen_addresses=*", "-c", "fsync=off",
			"-c", "unix_socket_directories=", "-c", "dynamic_shared_memory_type=mmap")
		// It listens before it accepts logins.
		const wait = `until pg_isready --quiet --host 127.0.0.1 --port "$1"; do sleep 0.1; done`
		ctx, cancel := context.WithTimeout(t.Context(), startTime)
		defer cancel()
		if out, err := app.command(ctx, w.serverHost(), "sh", "-c", wait, "sh", fmt.Sprint(port)).CombinedOutput(); err != nil {
			t.Fatalf("PostgreSQL does not start: %v\n%s", err, out)
		}
	}
	return trial{
		name: "PostgreSQL", prepare: serve,
		holds: []string{"20 of 20: QueryCanceled", "CREATE TABLE", "COPY 100000", "100000|5000050000"},
		talk: func(t *testing.T, w *way) []string {
			const script = `psql="psql -X -At -h $1 -p $2 -U app postgres"; $psql -c "create table $3 (n int)" &&
				seq 100000 | $psql -c "copy $3 from stdin" -c "select count(*), sum(n) from $3" &&
				$psql -c "select * from $3" | sha256sum; $psql -c "select nothing from nowhere"`
			table := "first"
			if w.ipv6 {
				table = "second"
			}
			host := w.address().String()
			return append(w.run(t, "/usr/bin/python3", "-c", cancelQueries, host, fmt.Sprint(port)),
				w.run(t, "sh", "-c", script, "sh", host, fmt.Sprint(port), table)...)
		},
	}
}
