package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/strict"
)

// longestAnswer bounds what is read of a replica's configuration. A ConfigMap has
// at most 1 MiB.
const longestAnswer = 4 << 20

// replicas asks replicas for the configuration that they use, all at once.
func (c cluster) replicas(ctx context.Context, asking check.Asking) []check.Replica {
	all := make([]check.Replica, len(asking.Pods))
	var wait sync.WaitGroup
	for i, pod := range asking.Pods {
		all[i] = check.Replica{Namespace: asking.Namespace, Service: asking.Service, Pod: pod}
		wait.Go(func() {
			err := c.forwarded(ctx, asking.Namespace, pod, asking.Port, func(ctx context.Context, address string) (err error) {
				all[i].InForce, err = inForce(ctx, address)
				return err
			})
			if err != nil {
				all[i].Problem = err.Error()
			}
		})
	}
	wait.Wait()
	return all
}

// inForce asks a webhook for the configuration that it uses. An older one has none
// to give.
func inForce(ctx context.Context, address string) (answer config.InForce, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+config.InForcePath, nil)
	if err != nil {
		return config.InForce{}, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // straight to the port, whatever the proxy variables say
	response, err := client.Do(request)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = fmt.Errorf("no answer, as from a webhook that serves none: %w", wrapped.Err) // the address is nobody's but ours
	}
	if err != nil {
		return config.InForce{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	switch {
	case err != nil:
		return config.InForce{}, err
	case response.StatusCode != http.StatusOK:
		return config.InForce{}, fmt.Errorf("%s: %s", response.Status, strict.Shorten(strings.TrimSpace(string(text))))
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Configuration == nil {
		return config.InForce{}, errors.Join(errors.New("its answer is no configuration"), err)
	}
	return answer, nil
}
