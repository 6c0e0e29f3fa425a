package check

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// soon is the remaining time at which the alert ShuntWebhookCertificateExpiresSoon
// fires.
const soon = 7 * 24 * time.Hour

const day = 24 * time.Hour

// certificates reports whether API servers can trust the webhooks' certificates.
func (r *report) certificates(snapshot Snapshot, in installation) {
	seen := map[string]bool{}
	var trusted []string
	for _, webhook := range in.webhooks {
		name := address(webhook.ClientConfig)
		served := snapshot.Certificates[name]
		chain, err := readChain(served.Chain)
		if served.Problem != "" {
			err = errors.New(served.Problem)
		}
		if !seen[name] {
			seen[name] = true
			r.validity(snapshot.Now, name, served, chain, err)
		}
		if err != nil {
			continue
		}
		if r.trust(snapshot.Now, in, webhook, served, chain) {
			trusted = append(trusted, webhook.Name)
		}
	}
	if len(trusted) > 0 {
		r.add(OK, CABundle, in.object(), "verifies the certificate: %s", strings.Join(trusted, ", "))
	}
}

// validity reports for how long a certificate is valid.
func (r *report) validity(now time.Time, name string, served Served, chain []*x509.Certificate, err error) {
	if err != nil {
		r.add(Warn, Certificate, name, "not checked, nor the CA bundle: %v", err)
		return
	}
	leaf := chain[0]
	left := leaf.NotAfter.Sub(now)
	until := leaf.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case left <= 0:
		r.add(Fail, Certificate, name, "%s: expired at %s, %s ago", served.From, until, rough(-left))
	case now.Before(leaf.NotBefore):
		r.add(Fail, Certificate, name, "%s: not valid before %s", served.From, leaf.NotBefore.UTC().Format(time.RFC3339))
	case left < soon:
		r.add(Warn, Certificate, name, "%s: expires in %s, at %s", served.From, rough(left), until)
	default:
		r.add(OK, Certificate, name, "%s: valid for %s, until %s", served.From, rough(left), until)
	}
}

// rough prints a duration as people do.
func rough(d time.Duration) string {
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.Round(time.Minute).String()
}

// trust reports whether a webhook's bundle verifies a certificate. It verifies for
// a time at which the certificate was valid: expiry is reported separately.
func (r *report) trust(
	now time.Time, in installation, webhook admissionregistrationv1.MutatingWebhook, served Served, chain []*x509.Certificate,
) bool {
	bundle := x509.NewCertPool()
	if len(webhook.ClientConfig.CABundle) == 0 {
		r.add(Fail, CABundle, in.object(), "%s: the caBundle is empty: API servers do not trust the webhook", webhook.Name)
		return false
	}
	if !bundle.AppendCertsFromPEM(webhook.ClientConfig.CABundle) {
		r.add(Fail, CABundle, in.object(), "%s: the caBundle holds no certificate; accepted: PEM", webhook.Name)
		return false
	}
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	at := slices.MinFunc([]time.Time{now, chain[0].NotAfter}, time.Time.Compare)
	at = slices.MaxFunc([]time.Time{at, chain[0].NotBefore}, time.Time.Compare)
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: serverName(webhook.ClientConfig), Roots: bundle, Intermediates: others, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		r.add(Fail, CABundle, in.object(), "%s: the caBundle does not verify the certificate %s: %v", webhook.Name, served.From, err)
	}
	return err == nil
}

// readChain reads PEM. Without an error the chain is not empty.
func readChain(text []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("it is not PEM")
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, certificate)
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return chain, nil
}
