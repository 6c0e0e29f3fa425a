package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/cert-manager/cert-manager/internal/apis/config/shared"
	config "github.com/cert-manager/cert-manager/internal/apis/config/webhook"
	"github.com/cert-manager/cert-manager/internal/webhook"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

// service is the name of the webhook's Service, which its certificate is for.
const service = "cert-manager-webhook"

// runWebhook serves the admission of cert-manager's own objects. Its certificate is of an authority of its own, in the
// Secret cert-manager-webhook-ca, from which the cainjector takes the caBundle of the webhook's configurations.
func runWebhook(ctx context.Context) error {
	namespace := os.Getenv("POD_NAMESPACE")
	server, err := webhook.NewCertManagerWebhookServer(logf.FromContext(ctx), config.WebhookConfiguration{
		SecurePort:           10250,
		HealthzPort:          6080,
		MetricsListenAddress: "0",
		TLSConfig: shared.TLSConfig{Dynamic: shared.DynamicServingConfig{
			SecretNamespace: namespace,
			SecretName:      service + "-ca",
			LeafDuration:    7 * 24 * time.Hour,
			DNSNames:        []string{service, service + "." + namespace, service + "." + namespace + ".svc"},
		}},
	})
	if err != nil {
		return fmt.Errorf("make the webhook's server: %w", err)
	}

	return server.Run(ctx)
}
