package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// checks are made with every proxy, in every system that it serves, on every way through it.
var checks = []struct {
	name string
	run  func(*testing.T, *way)
}{
	{"HTTP 1.1", checkHTTP1},
	{"HTTP 2", checkHTTP2},
	{"gRPC", checkGRPC},
	{"WebSocket", checkWebSocket},
	{"TLS", checkTLS},
	{"server speaks first", checkServerFirst},
	{"half-closed", checkHalfClosed},
	{"half-closed by the server", checkServerHalfClosed},
	{"1000 connections", checkMany},
	{"1000 requests", checkManyHTTP},
	{"100 MB both ways", checkBodies},
}

// Ways through a proxy.
var (
	inbound4, inbound6   = direction{inbound: true}, direction{inbound: true, ipv6: true}
	outbound4, outbound6 = direction{}, direction{ipv6: true}
)

// withoutConntrack is a case of TestProof.
const withoutConntrack = "Envoy in TPROXY without conntrack"

// TestProof sends real traffic through real proxies, behind the rules of the real shunt-init, in
// every system that they serve. What a proxy cannot serve must be refused, so that a client can use
// another family. With -short it leaves out the systems that no pod gets by injection.
func TestProof(t *testing.T) {
	t.Parallel()
	all := []direction{inbound4, inbound6, outbound4, outbound6}
	for _, test := range []struct {
		name    string
		start   func(*testing.T) *pod
		system  interception.System
		served  []direction
		refused []direction
	}{
		{"Envoy in REDIRECT", envoyIn(interception.ModeRedirect), interception.SystemRedirect, all, nil},
		{"Envoy in TPROXY", envoyIn(interception.ModeTProxy), interception.SystemTProxy, all, nil},
		{withoutConntrack, untrackedEnvoy, interception.SystemTProxy, all, nil},
		{"Envoy in ambient", ambientPod, interception.SystemAmbient, all, nil},
		{"Envoy in legacy", legacyPod, interception.SystemLegacy, all, nil},
		{"HAProxy in REDIRECT", haproxyIn(interception.ModeRedirect), interception.SystemRedirect,
			[]direction{inbound4, outbound4}, []direction{inbound6, outbound6}},
		{"HAProxy in TPROXY", haproxyIn(interception.ModeTProxy), interception.SystemTProxy,
			[]direction{inbound4, inbound6, outbound4}, []direction{outbound6}},
		{"HAProxy in legacy", legacyHAProxy, interception.SystemLegacy,
			[]direction{inbound4, outbound4}, []direction{inbound6, outbound6}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if testing.Short() && test.system != interception.SystemRedirect && test.system != interception.SystemTProxy {
				t.Skip("a system for who runs shunt-init by hand; go test without -short has it")
			}
			t.Parallel() // each has its own pod, and waits more than it works
			p := test.start(t)
			for _, d := range test.served {
				w := &way{direction: d, pod: p, system: test.system}
				t.Run(d.String(), func(t *testing.T) { prove(t, w) })
			}
			for _, d := range test.refused {
				t.Run(d.String()+" is refused", func(t *testing.T) { checkRefused(t, &way{direction: d, pod: p, system: test.system}) })
			}
			if test.name == withoutConntrack {
				checkNothingTracked(t, p)
			}
			if t.Failed() {
				said := p.Output()
				t.Logf("the proxy says:\n%s", said[:min(len(said), 4000)])
			}
		})
	}
}

// prove makes all checks of a way.
//
// On a busy machine a client's first bytes may come so late that Envoy treats the connection as one
// whose server speaks first. Everything works then, but the log does not know the protocol: such a
// check is repeated.
func prove(t *testing.T, w *way) {
	const most = 5
	all := make([]int, len(checks))
	for i := range all {
		all[i] = i
	}
	for times, pending := 1, all; len(pending) > 0; times++ {
		for _, i := range pending {
			w.check = i
			t.Run(checks[i].name, func(t *testing.T) { checks[i].run(t, w) })
		}
		w.checkEnds(t)
		pending = nil
		for _, want := range w.missingLines() {
			t.Logf("%s: no line of the access log says %v", checks[want.check].name, want.line)
			pending = append(pending, want.check)
		}
		pending = slices.Compact(pending)
		if w.wanted = nil; times == most && len(pending) > 0 {
			t.Fatalf("the access log lacked these lines %d times", times)
		}
	}
}

// checkRefused checks that nothing bypasses the proxy, and that a client gets a refusal at once.
func checkRefused(t *testing.T, w *way) {
	w.serve(t, httpPort, func(conn *net.TCPConn) error { return fmt.Errorf("reached by %s", conn.RemoteAddr()) })
	conn, err := w.dial(t.Context(), httpPort)
	if err == nil {
		conn.Close()
	}
	if !netns.IsRefused(err) {
		t.Errorf("dialing: %v, want it refused", err)
	}
}

// selfSigned makes a certificate for a name, and the pool of roots that trusts it.
func selfSigned(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
}
