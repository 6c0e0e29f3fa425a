package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/webhook"
)

// selfSigned holds the arguments for a webhook that makes its own certificate.
type selfSigned struct {
	on                    bool
	secret, configuration string
	names                 []string
}

func (s *selfSigned) add(fs *pflag.FlagSet) {
	fs.BoolVar(&s.on, "self-signed", false, "make the certificate here, and renew it, with its Secret in the namespace $POD_NAMESPACE")
	fs.StringVar(&s.secret, "self-signed-secret", "shunt-webhook-cert", "Secret that the certificate is kept in")
	fs.StringSliceVar(&s.names, "self-signed-names", nil,
		"DNS names that the certificate is for (default shunt-webhook.$POD_NAMESPACE.svc)")
	fs.StringVar(&s.configuration, "self-signed-configuration", "shunt", "MutatingWebhookConfiguration that is to trust it")
}

// options returns the options for a webhook in a namespace; nil without
// --self-signed.
func (s *selfSigned) options(namespace string) (*webhook.SelfSigned, error) {
	if !s.on {
		return nil, nil
	}
	names := s.names
	if len(names) == 0 {
		names = []string{"shunt-webhook." + namespace + ".svc"}
	}
	var errs []error
	check := func(what, value string) {
		if len(validation.IsDNS1123Subdomain(value)) > 0 {
			errs = append(errs, fmt.Errorf("%s: invalid value %q; accepted: a DNS name, such as a.example", what, value))
		}
	}
	check("--self-signed with $POD_NAMESPACE", namespace)
	check("--self-signed-secret", s.secret)
	check("--self-signed-configuration", s.configuration)
	for _, name := range names {
		check("--self-signed-names", name)
	}
	return &webhook.SelfSigned{
		Secret: types.NamespacedName{Namespace: namespace, Name: s.secret}, Names: names, Configuration: s.configuration,
	}, errors.Join(errs...)
}
