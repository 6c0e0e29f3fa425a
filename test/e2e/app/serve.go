package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// serve answers on every port until it is told to end, and logs each caller's
// address.
func serve() error {
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	failed, handler, clients := make(chan error), http.HandlerFunc(whoCalled), &idleClients{}
	for port, server := range map[string]func(net.Listener) error{
		"8080": func(l net.Listener) error { return http.Serve(l, handler) },
		"8443": func(l net.Listener) error {
			return http.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}}), handler)
		},
		"9000": serveTCP,
		"9001": clients.keep,
		"9090": serveHealth,
	} {
		listener, err := net.Listen("tcp", net.JoinHostPort("", port))
		if err != nil {
			return err
		}
		go func() { failed <- server(listener) }()
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, os.Interrupt)
	log.Print("serving")
	select {
	case err := <-failed:
		return err
	case <-ended:
		return clients.farewell()
	}
}

// whoCalled answers with the address that the connection came from.
func whoCalled(response http.ResponseWriter, request *http.Request) {
	host, _, err := net.SplitHostPort(request.RemoteAddr)
	if err != nil {
		http.Error(response, err.Error(), http.StatusInternalServerError)
		return
	}
	log.Printf("%s from %s", request.URL.Path, host)
	fmt.Fprintln(response, host)
}

// serveTCP accepts connections and reports their source, as a server that never
// speaks first.
func serveTCP(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err == nil {
			log.Printf("tcp from %s", connection.RemoteAddr())
			connection.Close()
		}
	}
}

func serveHealth(listener net.Listener) error {
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return server.Serve(listener)
}

// selfSigned makes a certificate that nobody needs to trust: kubelet's probes do
// not verify it.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"app"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
