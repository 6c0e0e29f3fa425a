package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

func mitmproxySample(t *testing.T) sample {
	for _, s := range allSamples {
		if s.folder == "mitmproxy" {
			return s
		}
	}
	t.Fatal("there is no sample mitmproxy")
	return sample{}
}

// TestMitmproxyRefusesTPROXY checks that the sample does not start in a mode in which no connection
// would reach it.
func TestMitmproxyRefusesTPROXY(t *testing.T) {
	t.Parallel()
	netns.Require(t)
	s := mitmproxySample(t)
	injected := s.inject(t, interception.ModeTProxy)
	c := initContainer(t, injected, podplan.ProxyContainerName)
	program := s.image(t, c)
	made, err := container.New(injected, *c, container.Node{
		Programs: map[string]string{c.Command[0]: program}, Volumes: s.volumes(t, injected, c), EmptyDirs: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New("pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	process, err := made.Start(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	err = process.Wait()
	said := strings.Join(process.Output(), "\n")
	if err == nil || !strings.Contains(said, "SHUNT_INTERCEPTION_MODE is TPROXY; accepted by this proxy: REDIRECT") {
		t.Errorf("in TPROXY it ends with %v, and says:\n%s", err, said)
	}
}

// TestMitmproxyDecrypts checks what the sample's README describes: decryption with an option, for
// clients that trust its CA. Clients may have public addresses.
func TestMitmproxyDecrypts(t *testing.T) {
	t.Parallel()
	// The second option because the servers here have self-made certificates.
	p := mitmproxySample(t).start(t, interception.ModeRedirect, "--set=decrypt=true", "--set=ssl_insecure=true")
	authority, err := os.ReadFile(filepath.Join(p.Node.EmptyDirs, "shunt-proxy-data", "mitmproxy-ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	public := client(func(ctx context.Context, network string, to netip.AddrPort, o netns.DialOptions) (net.Conn, error) {
		o.Source = netip.MustParseAddr("9.9.9.9")
		return p.Outside.Dial(ctx, network, to, o)
	})
	public.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: trusted, ServerName: "example.com"}
	response, err := public.Get("https://" + netip.AddrPortFrom(netns.PodIPv4, securePort).String() + "/secret")
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Output())
	}
	_ = response.Body.Close()
	for deadline := time.Now().Add(logTime); !strings.Contains(p.Output(), "GET https://"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("mitmproxy has not printed the request:\n%s", p.Output())
		}
	}
}
