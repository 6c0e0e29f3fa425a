package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
)

// patience is for one try to ask a pod.
const patience = 10 * time.Second

// certificate is the one that a webhook serves: as the address shows it, or a
// pod behind the Service; where none can be asked, the one of the Secret that
// the pods serve from.
func (c cluster) certificate(ctx context.Context, target check.Target) check.Served {
	if target.Direct {
		chain, err := shown(ctx, target.Name, target.Name)
		return served("served at "+target.Name, chain, err)
	}
	if target.Namespace == "" {
		return check.Served{Problem: "the webhooks' Service does not exist"}
	}
	unasked := errors.New("no pod of the Service is ready")
	if len(target.Pods) > 0 && target.Port > 0 {
		pod := target.Pods[0]
		var chain []byte
		err := c.forwarded(ctx, target.Namespace, pod, target.Port, func(ctx context.Context, address string) (err error) {
			chain, err = shown(ctx, address, target.Name)
			return err
		})
		if err == nil {
			return served(fmt.Sprintf("served by Pod %s/%s", target.Namespace, pod), chain, nil)
		}
		unasked = fmt.Errorf("asking pod %s: %w", pod, err)
	}
	if target.Secret == "" {
		return check.Served{Problem: unasked.Error()}
	}
	secret := corev1.Secret{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: target.Namespace, Name: target.Secret}, &secret); err != nil {
		return check.Served{Problem: fmt.Sprintf("%v; %v", unasked, err)}
	}
	return served(fmt.Sprintf("in Secret %s/%s (%v)", target.Namespace, target.Secret, unasked), secret.Data[corev1.TLSCertKey], nil)
}

func served(from string, chain []byte, err error) check.Served {
	if err != nil {
		return check.Served{Problem: fmt.Sprintf("%s: %v", from, err)}
	}
	return check.Served{From: from, Chain: chain}
}

// shown is what a TLS server shows that is asked for by a name. It is not
// verified: whether that can be done is what is to be found out.
func shown(ctx context.Context, address, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	host, _, err := net.SplitHostPort(name)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: host}}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	var chain bytes.Buffer
	for _, certificate := range connection.(*tls.Conn).ConnectionState().PeerCertificates {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}); err != nil {
			return nil, err
		}
	}
	return chain.Bytes(), nil
}

// forwarded calls ask with an address from which a port is forwarded to a pod.
func (c cluster) forwarded(
	ctx context.Context, namespace, pod string, port int32, ask func(ctx context.Context, address string) error,
) error {
	// Told to nobody: the error says it.
	ctx, cancel := context.WithTimeout(logr.NewContext(ctx, logr.Discard()), patience)
	defer cancel()
	dialer, err := c.dialer(namespace, pod)
	if err != nil {
		return err
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.NewOnAddressesForStreamingWithContext(ctx, dialer, []string{"127.0.0.1"},
		[]string{"0:" + strconv.Itoa(int(port))}, ready, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	return ask(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[0].Local))))
}

// dialer reaches a pod's ports as kubectl does: by a websocket, or by SPDY
// where the API server or a proxy before it has none.
func (c cluster) dialer(namespace, pod string) (httpstream.Dialer, error) {
	at, err := c.portForward(namespace, pod)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.api)
	if err != nil {
		return nil, err
	}
	older := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, at)
	newer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at, c.api)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(newer, older, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

func (c cluster) portForward(namespace, pod string) (*url.URL, error) {
	api := rest.CopyConfig(c.api)
	api.APIPath, api.GroupVersion = "/api", &corev1.SchemeGroupVersion
	api.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	core, err := rest.RESTClientFor(api)
	if err != nil {
		return nil, err
	}
	return core.Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL(), nil
}
