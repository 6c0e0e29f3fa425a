package cases

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/bootstrap"
)

// shorthand returns the words that stand for the bootstrap of the options.
func shorthand(opts bootstrap.Options) string {
	words := []string{"bootstrap", string(opts.Mode)}
	if opts.IPv4 {
		words = append(words, string(corev1.IPv4Protocol))
	}
	if opts.IPv6 {
		words = append(words, string(corev1.IPv6Protocol))
	}
	return "(" + strings.Join(words, " ") + ")"
}

// shorthands are all bootstraps that a case may speak of.
func shorthands() (textOf map[string]string, err error) {
	textOf = map[string]string{}
	for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy, interception.ModeNone} {
		for _, families := range [][2]bool{{true, true}, {true, false}, {false, true}} {
			opts := bootstrap.DefaultOptions()
			opts.Mode, opts.IPv4, opts.IPv6 = mode, families[0], families[1]
			if textOf[shorthand(opts)], err = bootstrap.Text(opts); err != nil {
				return nil, err
			}
		}
	}
	return textOf, nil
}

// expandBootstrap puts the whole bootstrap in place of its shorthand.
func expandBootstrap(pod *corev1.Pod) error {
	textOf, err := shorthands()
	if err != nil {
		return err
	}
	return replaceBootstrap(pod, func(arg string) (string, error) {
		text, known := textOf[arg]
		if !known {
			return "", fmt.Errorf("%s: unknown bootstrap", arg)
		}
		return text, nil
	})
}

// collapseBootstrap puts the shorthand in place of a bootstrap that has one.
func collapseBootstrap(pod *corev1.Pod) error {
	textOf, err := shorthands()
	if err != nil {
		return err
	}
	return replaceBootstrap(pod, func(arg string) (string, error) {
		for short, text := range textOf {
			if text == arg {
				return short, nil
			}
		}
		return "", fmt.Errorf("the sidecar of pod %q has a bootstrap that no options make", pod.Name)
	})
}

func replaceBootstrap(pod *corev1.Pod, replace func(string) (string, error)) error {
	for _, container := range pod.Spec.InitContainers {
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
