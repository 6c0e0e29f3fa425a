package traffic

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// programTrials let a client from Debian talk to a server from Debian.
func programTrials() []trial {
	return []trial{netcatTrial(), loggerTrial(), redisTrial(), memcachedTrial(), smtpTrial(), sshTrial(), rsyncTrial(), tlsTrial()}
}

// keys is a folder with a CA, a server's and a client's certificate, and ssh keys, made once.
var keys = sync.OnceValues(func() (string, error) {
	const script = `set -e; umask 077
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
		for name in server client; do
			openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
			openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out "$name.pem"
			ssh-keygen -q -t ed25519 -N '' -f "ssh-$name"
		done
		chown -R "$1:$1" .`
	folder, err := os.MkdirTemp(runFolder, "keys-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("sh", "-c", script, "sh", fmt.Sprint(app.id.UID))
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("making keys: %w\n%s", err, out)
	}
	return folder, nil
})

// key returns the path of a key or certificate.
func key(t *testing.T, name string) string {
	t.Helper()
	folder, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(folder, name)
}

// file writes a file for everybody to read.
func file(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // for servers of other users
		t.Fatal(err)
	}
	return path
}

// netcatTrial sends lines with nc -N, which half-closes after its input and
// ends with the server.
func netcatTrial() trial {
	const times = 10
	var want []string
	for i := range times {
		want = append(want, fmt.Sprintf("line %d", i))
	}
	return trial{name: "nc -N", want: append(want, "nc: [heard]"), talk: func(t *testing.T, w *way) []string {
		var lock sync.Mutex
		var got []string
		var printed string
		w.serve(t, 2003, func(conn *net.TCPConn) {
			all, err := io.ReadAll(conn)
			lock.Lock()
			got = append(got, strings.TrimSuffix(string(all), "\n"))
			if err != nil {
				got = append(got, errno(err))
			}
			lock.Unlock()
			_, _ = io.WriteString(conn, "heard\n")
		})
		for i := range times {
			script := fmt.Sprintf("echo line %d | nc -N %s 2003", i, w.address())
			printed = fmt.Sprint(w.run(t, "sh", "-c", script))
		}
		lock.Lock()
		defer lock.Unlock()
		return append(got, "nc: "+printed)
	}}
}

// loggerTrial sends messages with logger, which connects, writes and closes.
func loggerTrial() trial {
	const times = 10
	var want []string
	for i := range times {
		want = append(want, fmt.Sprintf("message %d", i))
	}
	return trial{name: "logger, over TCP", want: want, talk: func(t *testing.T, w *way) []string {
		arrived := make(chan string, times)
		w.serve(t, 601, func(conn *net.TCPConn) {
			all, err := io.ReadAll(conn)
			_, message, _ := strings.Cut(string(all), "test: ")
			if err != nil {
				message += ", " + errno(err)
			}
			arrived <- strings.TrimSpace(message)
		})
		var got []string
		for i := range times {
			if out := w.run(t, "logger", "--server", w.address().String(), "--tcp", "--port", "601", "--rfc3164", "--tag", "test",
				fmt.Sprintf("message %d", i)); text(out) != "" {
				return out
			}
			got = append(got, <-arrived)
		}
		return got
	}}
}

func redisTrial() trial {
	const port uint16 = 6379
	return trial{
		name:  "redis",
		holds: []string{"1000000", "20000", "hello"},
		prepare: func(t *testing.T, w *way) {
			app.daemon(t, w.serverHost(), port, "redis-server", "--port", fmt.Sprint(port), "--bind", "0.0.0.0", "::", "--save", "",
				"--protected-mode", "no", "--dir", app.folder(t, "redis"))
		},
		talk: func(t *testing.T, w *way) []string {
			cli := fmt.Sprintf("redis-cli -h %s -p %d", w.address(), port)
			script := fmt.Sprintf(`%[1]s flushall; %[1]s set a 1; %[1]s incr a; %[1]s get b; %[1]s nonsense
				%[1]s blpop list 60 & until %[1]s info clients | grep -q blocked_clients:1; do sleep 0.05; done
				%[1]s lpush list hello >/dev/null; wait
				head -c 1000000 /dev/zero | tr '\0' x | %[1]s -x set large; %[1]s strlen large
				seq 20000 | sed 's/.*/INCR n/' | %[1]s --pipe; %[1]s get n; %[1]s quit`, cli)
			return w.run(t, "sh", "-c", script)
		},
	}
}

func memcachedTrial() trial {
	const port uint16 = 11211
	return trial{
		name: "memcached, its text protocol",
		prepare: func(t *testing.T, w *way) {
			app.daemon(t, w.serverHost(), port, "memcached", "--port", fmt.Sprint(port), "--listen", "0.0.0.0,::0")
		},
		want: strings.Split("STORED\r\nVALUE key 0 5\r\nvalue\r\nEND\r\nERROR\r", "\n"),
		talk: func(t *testing.T, w *way) []string {
			const script = `printf 'set key 0 0 5\r\nvalue\r\nget key\r\nnonsense\r\nquit\r\n' | nc "$@"`
			return w.run(t, "sh", "-c", script, "sh", w.address().String(), fmt.Sprint(port))
		},
	}
}

// smtpServer runs aiosmtpd on all addresses; its command line accepts only one.
const smtpServer = `import asyncio, sys
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP

async def serve():
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(Sink(), hostname="mail"), port=int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(serve())
`

func smtpTrial() trial {
	const port uint16 = 2525
	return trial{
		name:  "SMTP",
		holds: []string{"> DATA", "< 250 OK", "0"},
		prepare: func(t *testing.T, w *way) {
			app.daemon(t, w.serverHost(), port, "/usr/bin/python3", "-c", smtpServer, fmt.Sprint(port))
		},
		talk: func(t *testing.T, w *way) []string {
			// curl's output about addresses, and about the parts that it sends, is left out.
			const script = `curl -sSv --mail-from a@example.com --mail-rcpt b@example.com --upload-file "$1" "$2/there" 2>&1 |
				grep -a '^[<>]' | tr -d '\r'
				curl -s --mail-from a@example.com --mail-rcpt nobody --upload-file "$1" "$2/"; echo $?`
			mail := "Subject: test\r\n\r\n.\r\n" + strings.Repeat("a line\r\n", 10_000) + ".\r\n"
			return w.run(t, "sh", "-c", script, "sh", file(t, filepath.Join(app.folder(t, "mail"), "mail"), mail), w.url("smtp", port))
		},
	}
}

// sshTrial logs in with a key, sends bytes there and back, and ends with the command's exit code.
// Its port is not 22, which is excluded from interception.
func sshTrial() trial {
	const port uint16 = 2222
	return trial{
		name: "ssh",
		want: []string{"an error", "ended with 7", "500500"},
		prepare: func(t *testing.T, w *way) {
			config := fmt.Sprintf("Port %d\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nStrictModes no\nUsePAM no\nUseDNS no\n"+
				"PrintMotd no\nPrintLastLog no\n", port, key(t, "ssh-server"), key(t, "ssh-client.pub"))
			file := file(t, filepath.Join(root.folder(t, "sshd"), "config"), config)
			root.daemon(t, w.serverHost(), port, "/usr/sbin/sshd", "-D", "-e", "-f", file)
		},
		talk: func(t *testing.T, w *way) []string {
			const script = `head -c 500500 /dev/zero |
				(ssh -q -F none -o KexAlgorithms=curve25519-sha256 -o BatchMode=yes -o StrictHostKeyChecking=no \
					-o UserKnownHostsFile=/dev/null -i "$1" -p "$2" "app@$3" 'cat; echo an error >&2; exit 7'; echo "ended with $?" >&2) |
				wc -c`
			return w.run(t, "sh", "-c", script, "sh", key(t, "ssh-client"), fmt.Sprint(port), w.address().String())
		},
	}
}

// rsyncTrial copies a folder from rsync's daemon, and back.
func rsyncTrial() trial {
	const port uint16 = 8873
	return trial{
		name:  "rsync",
		holds: []string{"data"},
		prepare: func(t *testing.T, w *way) {
			folder := app.folder(t, "rsyncd")
			config := fmt.Sprintf("use chroot = no\nreverse lookup = no\nport = %d\npid file = %s/pid\nlog file = /dev/null\n"+
				"[data]\npath = %[2]s\nread only = no\n", port, folder)
			for i := range 20 {
				file(t, filepath.Join(folder, fmt.Sprintf("file-%d", i)), strings.Repeat(fmt.Sprintf("line of %d\n", i), i*i*100))
			}
			config = file(t, filepath.Join(folder, "config"), config)
			app.daemon(t, w.serverHost(), port, "rsync", "--daemon", "--no-detach", "--config="+config)
		},
		talk: func(t *testing.T, w *way) []string {
			url := w.url("rsync", port)
			return w.run(t, "sh", "-c", fmt.Sprintf(`cd %s && rsync -a %s/data/ there/ && rsync -a there/ %[2]s/data/back/ &&
				rsync -a %[2]s/data/back/ again/ && cat there/file-* | sha256sum && cat again/file-* | sha256sum &&
				rsync %[2]s/ | tr -d '[:blank:]'; rsync -a %[2]s/nothing/ . 2>/dev/null; echo $?`, app.folder(t, "rsync"), url))
		},
	}
}

// tlsTrial runs an openssl server, which requires a client certificate, and clients with and
// without one.
func tlsTrial() trial {
	const port uint16 = 4433
	return trial{
		name: "TLS with client certificates",
		prepare: func(t *testing.T, w *way) {
			app.daemon(t, w.serverHost(), port, "openssl", "s_server", "-accept", fmt.Sprintf("*:%d", port), "-rev", "-quiet",
				"-key", key(t, "server.key"), "-cert", key(t, "server.pem"), "-CAfile", key(t, "ca.pem"),
				"-Verify", "1", "-verify_return_error")
		},
		want: []string{"desrever", "without one: refused"},
		talk: func(t *testing.T, w *way) []string {
			client := fmt.Sprintf("openssl s_client -quiet -connect %s -CAfile %s -verify_return_error",
				netip.AddrPortFrom(w.address(), port), key(t, "ca.pem"))
			return w.run(t, "sh", "-c", fmt.Sprintf(`printf 'reversed\nCLOSE\n' | %[1]s -cert %[2]s -key %[3]s 2>/dev/null
				printf 'reversed\nCLOSE\n' | %[1]s 2>/dev/null | grep -q desrever || echo without one: refused`,
				client, key(t, "client.pem"), key(t, "client.key")))
		},
	}
}
