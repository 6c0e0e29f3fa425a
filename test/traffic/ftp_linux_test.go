package traffic

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// ftpPort is the port of vsftpd.
const ftpPort uint16 = 21

// ftpServe starts vsftpd. Everybody who logs in may upload into its folder in.
func ftpServe(t *testing.T, w *way) {
	w.folder = root.folder(t, "vsftpd")
	files := filepath.Join(w.folder, "files")
	for folder, owner := range map[string]user{files: root, filepath.Join(w.folder, "empty"): root, filepath.Join(files, "in"): app} {
		err := os.MkdirAll(folder, 0o755) //nolint:gosec // for clients to see
		if err == nil {
			err = os.Chown(folder, int(owner.id.UID), int(owner.id.GID))
		}
		if err == nil {
			err = os.Chmod(w.folder, 0o755) //nolint:gosec // as above
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`listen=NO
listen_ipv6=YES
listen_port=%d
background=NO
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
write_enable=YES
anon_upload_enable=YES
anon_other_write_enable=YES
anon_umask=022
ftp_username=app
nopriv_user=nobody
anon_root=%[2]s/files
secure_chroot_dir=%[2]s/empty
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
connect_from_port_20=NO
xferlog_enable=NO
`, ftpPort, w.folder)
	root.daemon(t, w.serverHost(), ftpPort, "/usr/sbin/vsftpd", file(t, filepath.Join(w.folder, "vsftpd.conf"), config))
}

// ftpTrials upload small files and read one back. Each file has a data connection of its own, to
// which the client, or in active mode the server, connects, and which the client closes after it
// has written.
func ftpTrials() []trial {
	return []trial{
		{name: "FTP, passive", prepare: ftpServe, talk: ftpTalk(20, "--disable-eprt"), want: ftpWant(20)},
		// Over IPv6 vsftpd connects to the address that it sees, whatever the client sends.
		{
			name: "FTP, active", prepare: ftpServe, talk: ftpTalk(5, "--ftp-port", "-"), want: ftpWant(5),
			ways: []direction{{inbound: true}, {}},
		},
	}
}

func ftpWant(times int) []string {
	return []string{
		fmt.Sprintf("client: %d of %[1]d files uploaded", times), fmt.Sprintf("server: %d of %[1]d files", times), "client: read back",
	}
}

func ftpTalk(times int, options ...string) func(*testing.T, *way) []string {
	return func(t *testing.T, w *way) []string {
		const upload = `n=0; url=$1; times=$2; shift 2; for i in $(seq "$times"); do
				echo "file $i" | curl -sS "$@" -T - "$url/in/$i" || break; n=$((n + 1))
			done 2>/dev/null; echo "client: $n of $times files uploaded"`
		url := w.url("ftp", ftpPort)
		got := w.run(t, slices.Concat([]string{"sh", "-c", upload, "sh", url, fmt.Sprint(times)}, options)...)
		arrived := 0
		for i := range times {
			content, err := os.ReadFile(filepath.Join(w.folder, "files", "in", fmt.Sprint(i+1)))
			if err == nil && string(content) == fmt.Sprintf("file %d\n", i+1) {
				arrived++
			}
		}
		got = append(got, fmt.Sprintf("server: %d of %d files", arrived, times))
		back := text(w.run(t, slices.Concat([]string{"curl", "-sS", url + "/in/1"}, options)...))
		if back == "file 1" {
			back = "read back"
		} else {
			back = "read nothing back"
		}
		for i := range times {
			_ = os.Remove(filepath.Join(w.folder, "files", "in", fmt.Sprint(i+1)))
		}
		return append(got, "client: "+back)
	}
}
