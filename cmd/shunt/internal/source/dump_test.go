package source

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/cluster"
)

const rules = "*nat\n:OUTPUT ACCEPT [0:0]\n[7:420] -A OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n"

// parsed returns a source with the flags of a command line.
func parsed(t *testing.T, args ...string) *Source {
	t.Helper()
	s := New()
	s.SetCluster(func() (*rest.Config, string, error) { return nil, "", errors.New("no cluster") })
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	s.SetPod(fs.Args())
	return s
}

// TestDumps reads a file, a folder and stdin, each a pod of its own.
func TestDumps(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"iptables-save": rules, ".hidden": "nonsense", "addresses": "2: eth0: <UP>\n    inet 10.9.8.7/24 scope global eth0\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(folder, "iptables-save")
	s := parsed(t, "--dump", folder, "--dump", file, "--dump", "-")
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	var notes strings.Builder
	pods, err := s.Read(context.Background(), Streams{Stdin: strings.NewReader(rules), Stderr: &notes})
	if err != nil || len(pods) != 3 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	for i, name := range []string{folder, file, "-"} {
		side := pods[i].Sides[0]
		if pods[i].Name != name || pods[i].Proxy.Outbound != 15001 || side.Invented != (i > 0) {
			t.Errorf("%+v", pods[i])
		}
		if rule := side.Sets[0].Tables[0].Chains[0].Rules[0]; rule.Packets == nil || *rule.Packets != 7 {
			t.Errorf("%s: the rule has counted %v packets, want 7", name, rule.Packets)
		}
	}
	if !strings.Contains(notes.String(), file+": the addresses of the pod: no output of ip addr") {
		t.Errorf("notes: %s", &notes)
	}
}

// TestSourcesThatAreWrong checks the messages of wrong sources.
func TestSourcesThatAreWrong(t *testing.T) {
	empty := t.TempDir()
	for _, wrong := range []struct{ args, want string }{
		{"--dump x --netns /x", "--dump and --netns: given together; accepted: one of --filename, --dump, --netns, --pod, or"},
		{"--netns x", "--netns: invalid value \"x\"; accepted: an absolute path"},
		{"--netns /x --pid 1", "--netns with --pid; accepted: one of them"},
		{"--pod a/b/c", "--pod: invalid value \"a/b/c\"; accepted: POD, NAMESPACE/POD"},
		{"a b c", "POD: invalid value \"a/b/c\"; accepted: POD, or KIND/NAME"},
		{"--pod a b", "\"b\" with --pod; accepted: one of them"},
		{"--reader-image x", "--reader-image without a pod"},
		{"--dump " + empty, empty + ": no file in it"},
		{"--dump " + empty + "/x", "no such file"},
		{"--pod a", "find the cluster: no cluster"},
	} {
		s := parsed(t, strings.Fields(wrong.args)...)
		err := s.Check()
		if err == nil {
			_, err = s.Read(context.Background(), Streams{Stdin: EOF{}, Stderr: io.Discard})
		}
		if err == nil || !strings.Contains(err.Error(), wrong.want) {
			t.Errorf("%s: %v; want %s", wrong.args, err, wrong.want)
		}
	}
}

// TestNamespaceThatIsNotThere checks that it is an error of its own kind, whose exit code is 3.
func TestNamespaceThatIsNotThere(t *testing.T) {
	_, err := parsed(t, "--pid", "999999999").Read(context.Background(), Streams{Stderr: io.Discard})
	var unasked *UnaskedError
	want := "no such file"
	if runtime.GOOS != "linux" {
		want = "has no network namespaces; accepted: on the Linux node"
	}
	if !errors.As(err, &unasked) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want an UnaskedError: %s", err, want)
	}
}

// TestPodsAreNamed reads the names that people give pods.
func TestPodsAreNamed(t *testing.T) {
	for args, want := range map[string]cluster.Asked{
		"--pod first": {Namespace: "shop", Name: "first"}, "--pod other/first": {Namespace: "other", Name: "first"},
		"first": {Namespace: "shop", Name: "first"}, "deploy/echo": {Namespace: "shop", Kind: "Deployment", Name: "echo"},
		"deployments.apps echo": {Namespace: "shop", Kind: "Deployment", Name: "echo"},
	} {
		s := parsed(t, strings.Fields(args)...)
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		if got := s.kinds[len(s.kinds)-1].(*running).asked("shop"); got != want {
			t.Errorf("%s: %+v, want %+v", args, got, want)
		}
	}
}
