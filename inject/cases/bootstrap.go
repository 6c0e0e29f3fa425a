package cases

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/bootstrap"
)

// Words of a shorthand beside the mode and the families. What is as in
// bootstrap.DefaultOptions has none.
const (
	wordDNS         = "DNS"
	wordDNSAll      = "DNS-on-all-interfaces"
	wordNoDetection = "no-detection"
	wordServerFirst = "server-first="
	wordHealth      = "health="
)

// shorthand returns the words that stand for the bootstrap of the options.
func shorthand(opts bootstrap.Options) string {
	words := []string{"bootstrap", string(opts.Mode)}
	for _, word := range []struct {
		is   bool
		text string
	}{
		{opts.IPv4, string(corev1.IPv4Protocol)},
		{opts.IPv6, string(corev1.IPv6Protocol)},
		{opts.DNSPort != 0 && !opts.DNSAllInterfaces, wordDNS},
		{opts.DNSPort != 0 && opts.DNSAllInterfaces, wordDNSAll},
		{!opts.ProtocolDetection, wordNoDetection},
		{opts.ServerFirstPorts != bootstrap.DefaultServerFirstPorts, wordServerFirst + opts.ServerFirstPorts},
		{opts.HealthPort != interception.HealthPort, wordHealth + strconv.Itoa(int(opts.HealthPort))},
	} {
		if word.is {
			words = append(words, word.text)
		}
	}
	return "(" + strings.Join(words, " ") + ")"
}

// optionsOf reads a shorthand.
func optionsOf(short string) (bootstrap.Options, error) {
	opts := bootstrap.DefaultOptions()
	opts.IPv4, opts.IPv6 = false, false
	words := strings.Fields(strings.Trim(short, "()"))
	if len(words) < 2 || words[0] != "bootstrap" {
		return opts, fmt.Errorf("%.100s: not a shorthand", short)
	}
	opts.Mode = interception.Mode(words[1])
	for _, word := range words[2:] {
		ports, isPorts := strings.CutPrefix(word, wordServerFirst)
		health, isHealth := strings.CutPrefix(word, wordHealth)
		switch {
		case word == string(corev1.IPv4Protocol):
			opts.IPv4 = true
		case word == string(corev1.IPv6Protocol):
			opts.IPv6 = true
		case word == wordDNS, word == wordDNSAll:
			opts.DNSPort, opts.DNSAllInterfaces = interception.DefaultDNSPort, word == wordDNSAll
		case word == wordNoDetection:
			opts.ProtocolDetection = false
		case isPorts:
			opts.ServerFirstPorts = ports
		case isHealth:
			port, err := strconv.ParseUint(health, 10, 16)
			if err != nil {
				return opts, fmt.Errorf("%s: %w", short, err)
			}
			opts.HealthPort = uint16(port)
		default:
			return opts, fmt.Errorf("%s: unknown word %q", short, word)
		}
	}
	return opts, nil
}

// expandBootstrap puts the whole bootstrap in place of its shorthand.
func expandBootstrap(pod *corev1.Pod) error {
	return replaceBootstrap(pod, func(arg string) (string, error) {
		opts, err := optionsOf(arg)
		if err != nil {
			return "", err
		}
		return bootstrap.Text(opts)
	})
}

// collapseBootstrap puts the shorthand in place of the bootstrap of these
// options.
func collapseBootstrap(pod *corev1.Pod, opts bootstrap.Options) error {
	return replaceBootstrap(pod, func(arg string) (string, error) {
		text, err := bootstrap.Text(opts)
		if err == nil && arg != text {
			err = fmt.Errorf("the sidecar of pod %q has not the bootstrap of its plan", pod.Name)
		}
		return shorthand(opts), err
	})
}

func replaceBootstrap(pod *corev1.Pod, replace func(string) (string, error)) error {
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if container.Name != inject.ProxyContainerName {
			continue
		}
		for i := 1; i < len(container.Args); i++ {
			if container.Args[i-1] != "--config-yaml" {
				continue
			}
			text, err := replace(container.Args[i])
			if err != nil {
				return err
			}
			container.Args[i] = text
		}
	}
	return nil
}
