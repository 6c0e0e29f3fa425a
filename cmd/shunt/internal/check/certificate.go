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

// soon is when the alert ShuntWebhookCertificateExpiresSoon is raised.
const soon = 7 * 24 * time.Hour

const day = 24 * time.Hour

// certificates says whether API servers can trust who answers.
func (r *report) certificates(s Snapshot, in installation) {
	seen := map[string]bool{}
	var trusted []string
	for _, w := range in.webhooks {
		name := address(w.ClientConfig)
		served := s.Certificates[name]
		chain, err := readChain(served.Chain)
		if served.Problem != "" {
			err = errors.New(served.Problem)
		}
		if !seen[name] {
			seen[name] = true
			r.validity(s.Now, name, served, chain, err)
		}
		if err != nil {
			continue
		}
		if r.trust(s.Now, in, w, served, chain) {
			trusted = append(trusted, w.Name)
		}
	}
	if len(trusted) > 0 {
		r.add(OK, CABundle, in.object(), "verifies the certificate: %s", strings.Join(trusted, ", "))
	}
}

// validity says for how long a certificate is valid.
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

// rough is a time as people say it.
func rough(d time.Duration) string {
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.Round(time.Minute).String()
}

// trust says whether a webhook's bundle verifies a certificate. Whether that
// has expired is another question, so it is asked for a time at which it was
// valid.
func (r *report) trust(
	now time.Time, in installation, w admissionregistrationv1.MutatingWebhook, served Served, chain []*x509.Certificate,
) bool {
	bundle := x509.NewCertPool()
	if len(w.ClientConfig.CABundle) == 0 {
		r.add(Fail, CABundle, in.object(), "%s: the caBundle is empty: API servers do not trust the webhook", w.Name)
		return false
	}
	if !bundle.AppendCertsFromPEM(w.ClientConfig.CABundle) {
		r.add(Fail, CABundle, in.object(), "%s: the caBundle holds no certificate; accepted: PEM", w.Name)
		return false
	}
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	at := slices.MinFunc([]time.Time{now, chain[0].NotAfter}, time.Time.Compare)
	at = slices.MaxFunc([]time.Time{at, chain[0].NotBefore}, time.Time.Compare)
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: serverName(w.ClientConfig), Roots: bundle, Intermediates: others, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		r.add(Fail, CABundle, in.object(), "%s: the caBundle does not verify the certificate %s: %v", w.Name, served.From, err)
	}
	return err == nil
}

// readChain reads PEM; it is not empty where there is no error.
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
