package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shunt-dev/shunt/cmd/internal/daemon"
	"github.com/shunt-dev/shunt/webhook"
)

// TestSelfSigned checks the options that the arguments give, and that without them the webhook
// makes no certificate.
func TestSelfSigned(t *testing.T) {
	for _, test := range []struct {
		args []string
		want *webhook.SelfSigned
	}{
		{nil, nil},
		{[]string{"--self-signed"}, &webhook.SelfSigned{
			Secret: types.NamespacedName{Namespace: "mesh", Name: "shunt-webhook-cert"},
			Names:  []string{"shunt-webhook.mesh.svc"}, Configuration: "shunt",
		}},
		{
			[]string{"--self-signed", "--self-signed-secret=s", "--self-signed-names=a.b,c", "--self-signed-configuration=x"},
			&webhook.SelfSigned{
				Secret: types.NamespacedName{Namespace: "mesh", Name: "s"}, Names: []string{"a.b", "c"}, Configuration: "x",
			},
		},
	} {
		parsed, err := parse(append(test.args, configFile(t)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsed.selfSigned.options("mesh")
		if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("%q: error %v (-want +got):\n%s", test.args, err, diff)
		}
	}
}

// TestSelfSignedWithoutNamespace checks that a webhook that cannot know its Secret does not start.
func TestSelfSignedWithoutNamespace(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	file := kubeconfigFile(t)
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), []string{configFile(t), "--kubeconfig=" + file, "--self-signed", "--self-signed-names=A_"}, &stdout, &stderr)
	if code := daemon.ExitCode(err); code != daemon.ExitArguments {
		t.Fatalf("exit code %d, want %d: %v", code, daemon.ExitArguments, err)
	}
	for _, says := range []string{`$POD_NAMESPACE: invalid value ""`, `--self-signed-names: invalid value "A_"`} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("error %q does not say %q", err, says)
		}
	}
}
