package webhook_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// renew puts a certificate with this lifetime into dir, as kubelet does: the symlink to the former
// version's folder is replaced, and that folder deleted.
func renew(t *testing.T, dir, version string, age time.Duration) {
	t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKeyWithOptions(cert.SelfSignedCertKeyOptions{
		Host: "webhook", AlternateIPs: []net.IP{net.IPv4(127, 0, 0, 1)}, MaxAge: age,
	})
	if err != nil {
		t.Fatal(err)
	}
	putPair(t, dir, version, certificate, key)
}

func putPair(t *testing.T, dir, version string, certificate, key []byte) {
	t.Helper()
	before, _ := os.Readlink(filepath.Join(dir, "..data"))
	errs := []error{
		os.Mkdir(filepath.Join(dir, version), 0o700),
		os.WriteFile(filepath.Join(dir, version, "tls.crt"), certificate, 0o600),
		os.WriteFile(filepath.Join(dir, version, "tls.key"), key, 0o600),
		os.Symlink(version, filepath.Join(dir, "..data_tmp")),
		os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	if before != "" {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, before)))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// startServer runs the real server until the test ends, and returns its address.
func startServer(t *testing.T, dir string, counts *webhook.Metrics) string {
	t.Helper()
	address, _ := startServerFor(t, dir, counts, webhook.NewHandler(config.Default(), enabledNamespace(), counts), "")
	return address
}

// startServerFor runs it for a handler, until the test ends or it is stopped.
func startServerFor(t *testing.T, dir string, counts *webhook.Metrics, handler *webhook.Handler, clientCA string) (string, func()) {
	t.Helper()
	for range 10 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := listener.Addr().(*net.TCPAddr)
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		server := webhook.NewServer(webhook.Options{
			Host: address.IP.String(), Port: address.Port, CertDir: dir, ClientCAFile: clientCA,
		}, counts)
		server.Register(webhook.Path, handler.HTTP(logr.Discard()))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- server.Start(ctx) }()
		for err = server.StartedChecker()(nil); err != nil && len(done) == 0; err = server.StartedChecker()(nil) {
			time.Sleep(5 * time.Millisecond)
		}
		if err == nil {
			t.Cleanup(func() {
				cancel()
				if err := <-done; err != nil {
					t.Errorf("the server ended with %v", err)
				}
			})
			return address.String(), cancel
		}
		cancel()
		if err := <-done; !errors.Is(err, syscall.EADDRINUSE) { // another test may have taken the port
			t.Fatal(err)
		}
	}
	t.Fatal("no port is free")
	return "", nil
}

// expiry returns that of the certificate that a client sees.
func expiry(t *testing.T, address string) time.Time {
	t.Helper()
	connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	return connection.ConnectionState().PeerCertificates[0].NotAfter
}

// unreadable returns the number of certificates that could not be read.
func unreadable(t *testing.T) float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "certwatcher_read_certificate_errors_total" {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
}

// TestCertificateExpiry checks that the metric is that of the served certificate: of a renewed one
// once it is served, and not of one that cannot be read.
func TestCertificateExpiry(t *testing.T) {
	dir, counts := t.TempDir(), webhook.NewMetrics()
	const name = "shunt_webhook_certificate_expiry_timestamp_seconds"
	gauge := func() int64 { return int64(series(t, counts, name, nil).GetGauge().GetValue()) }
	renew(t, dir, "..1", 2*time.Hour) // one hour of it is over, for clocks that differ
	address := startServer(t, dir, counts)
	first := expiry(t, address)
	if until := time.Until(first); until < 30*time.Minute || until > time.Hour || gauge() != first.Unix() {
		t.Fatalf("serves until %v, metric %v", first, time.Unix(gauge(), 0))
	}

	renew(t, dir, "..2", 24*time.Hour)
	deadline := time.Now().Add(time.Minute) // it is read when the file changes, or 10 s later
	for gauge() == first.Unix() && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	second := expiry(t, address)
	if until := time.Until(second); until < 22*time.Hour || gauge() != second.Unix() {
		t.Fatalf("renewed for a day: serves until %v, metric %v", second, time.Unix(gauge(), 0))
	}

	before := unreadable(t)
	putPair(t, dir, "..3", []byte("no certificate"), []byte("no key"))
	for deadline = time.Now().Add(time.Minute); unreadable(t) == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the certificate has not been read for a minute")
		}
	}
	if got := expiry(t, address); got != second || gauge() != second.Unix() {
		t.Errorf("with a certificate that is none: serves until %v, metric %v, want %v", got, time.Unix(gauge(), 0), second)
	}
}

// TestNoCertificate checks that a server without a certificate says where it looked.
func TestNoCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "empty")
	err := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: 1, CertDir: dir}, webhook.NewMetrics()).Start(t.Context())
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(fmt.Sprint(err), dir) {
		t.Errorf("error %v, want one that names %s", err, dir)
	}
}

// clientCertificate returns a certificate that is its own CA.
func clientCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "api-server"}, NotAfter: time.Now().Add(time.Hour),
		NotBefore: time.Now().Add(-time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	text, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key}
}

// TestClientCertificates checks that with a CA for clients only those with a certificate of it are
// answered.
func TestClientCertificates(t *testing.T) {
	dir, counts := t.TempDir(), webhook.NewMetrics()
	renew(t, dir, "..1", 2*time.Hour)
	own := clientCertificate(t)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	address, _ := startServerFor(t, dir, counts, webhook.NewHandler(config.Default(), enabledNamespace(), counts), ca)
	for name, certificates := range map[string][]tls.Certificate{"of the CA": {own}, "none": nil} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: certificates,
		}}}
		response, err := client.Post("https://"+address+webhook.Path, "application/json",
			bytes.NewReader(reviewOf(t, createPod(t, &corev1.Pod{}, "demo"))))
		if err == nil {
			_ = response.Body.Close()
		}
		if answered := err == nil && response.StatusCode == http.StatusOK; answered != (certificates != nil) {
			t.Errorf("a client with a certificate, %s: answered %v, error %v", name, answered, err)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file", filepath.Join(dir, "tls.key"): "no certificate in",
	} {
		server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: 1, CertDir: dir, ClientCAFile: path}, counts)
		if err := server.Start(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", path, err, want)
		}
	}
}
