package bootstrap_test

import (
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/bootstrap"
)

// TestText: a YAML reader gets the very bootstrap out of the text, which is
// the same each time (protojson adds spaces at random, maps have no order) and
// holds nothing that Kubernetes would replace.
func TestText(t *testing.T) {
	for _, mode := range modes {
		opts := options(mode)
		opts.DNSPort = interception.DefaultDNSPort
		text, err := bootstrap.Text(opts)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		var read bootstrapv3.Bootstrap
		if err := protojson.Unmarshal(plain, &read); err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		if diff := cmp.Diff(mustJSON(t, mustNew(t, opts)), mustJSON(t, &read)); diff != "" {
			t.Errorf("%s: the text is of another bootstrap (-want +got):\n%s", mode, diff)
		}
		if strings.ContainsAny(text, "$\n") {
			t.Errorf("%s: the text has a dollar sign or a line end", mode)
		}
		bootstrap.Forget()
		again, err := bootstrap.Text(opts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text, again); diff != "" {
			t.Errorf("%s, made again (-first +again):\n%s", mode, diff)
		}
	}
}

func mustJSON(t *testing.T, b *bootstrapv3.Bootstrap) string {
	t.Helper()
	text, err := bootstrap.JSON(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTextsAreForgotten: annotations can ask for bootstraps without end.
func TestTextsAreForgotten(t *testing.T) {
	opts := options(interception.ModeNone)
	for i := range bootstrap.MaxPrinted + 1 {
		opts.Mark = uint32(i + 1)
		if _, err := bootstrap.Text(opts); err != nil {
			t.Fatal(err)
		}
		if n := bootstrap.Printed(); n > bootstrap.MaxPrinted {
			t.Fatalf("%d texts are remembered after %d", n, i+1)
		}
	}
}

// TestSize holds what docs/proxy.md says of what a pod carries.
func TestSize(t *testing.T) {
	const most = 19_000 // bytes: both families, protocol detection, no DNS
	for _, mode := range modes {
		text, err := bootstrap.Text(options(mode))
		if err != nil {
			t.Fatal(err)
		}
		plain := mustJSON(t, mustNew(t, options(mode)))
		t.Logf("%s: %d bytes; %d written out", mode, len(text), len(plain))
		if len(text) > most {
			t.Errorf("%s: the bootstrap has %d bytes, more than %d", mode, len(text), most)
		}
	}
}
