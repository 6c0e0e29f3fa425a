package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/webhook"
)

// settings are all that the arguments say.
type settings struct {
	config     inject.Config
	options    webhook.Options
	kubeconfig string
	logLevel   slog.Level
	logFormat  string
	version    bool
}

// configFlag sets one field of the injector's configuration. A flag wins over
// the file of --config.
type configFlag struct {
	name, usage string
	field       string // of inject.Config, as its Validate names it
	set         func(*inject.Config, string)
	get         func(inject.Config) string
}

var configFlags = []configFlag{
	{
		"init-image", "image of the init container shunt-init", "initImage",
		func(c *inject.Config, v string) { c.InitImage = v }, func(c inject.Config) string { return c.InitImage },
	},
	{
		"proxy-image", "image of the sidecar shunt-proxy, with envoy on its PATH", "proxyImage",
		func(c *inject.Config, v string) { c.ProxyImage = v }, func(c inject.Config) string { return c.ProxyImage },
	},
	{
		"revision", "name of this injector in the status annotation; a DNS label", "revision",
		func(c *inject.Config, v string) { c.Revision = v }, func(c inject.Config) string { return c.Revision },
	},
	{
		"backend", "kernel interface that shunt-init writes to: auto, nft or legacy", "backend",
		func(c *inject.Config, v string) { c.Backend = interception.Backend(v) },
		func(c inject.Config) string { return string(c.Backend) },
	},
	{
		"ip-families", "families that the proxy listens on: IPv4, IPv6 or IPv4,IPv6", "ipFamilies",
		setFamilies, getFamilies,
	},
	{
		"default-policy", "what happens to pods that nothing else decides about: enabled or disabled", "defaultPolicy",
		func(c *inject.Config, v string) { c.DefaultPolicy = inject.Policy(v) },
		func(c inject.Config) string { return string(c.DefaultPolicy) },
	},
}

func setFamilies(c *inject.Config, text string) {
	c.IPFamilies = nil
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			c.IPFamilies = append(c.IPFamilies, corev1.IPFamily(word))
		}
	}
}

func getFamilies(c inject.Config) string {
	words := make([]string, len(c.IPFamilies))
	for i, family := range c.IPFamilies {
		words[i] = string(family)
	}
	return strings.Join(words, ",")
}

// raw are the flags' values before they are checked.
type raw struct {
	settings
	configFile string
	levelName  string
	flags      *pflag.FlagSet
}

func newFlags() *raw {
	r := &raw{flags: pflag.NewFlagSet("shunt-webhook", pflag.ContinueOnError)}
	fs, defaults := r.flags, webhook.DefaultOptions()
	fs.SortFlags = false
	fs.Usage = func() {}
	fs.StringVar(&r.configFile, "config", "", "file with the injector's configuration, YAML; a flag below wins over it")
	for _, f := range configFlags {
		fs.String(f.name, f.get(inject.DefaultConfig()), f.usage)
	}
	fs.IntVar(&r.options.Port, "webhook-port", defaults.Port, "port of the webhook, HTTPS")
	fs.StringVar(&r.options.CertDir, "cert-dir", defaults.CertDir, "folder with tls.crt and tls.key, read again when they change")
	fs.StringVar(&r.options.MetricsAddress, "metrics-bind-address", defaults.MetricsAddress, "host:port of /metrics; 0 for none")
	fs.StringVar(&r.options.ProbeAddress, "health-probe-bind-address", defaults.ProbeAddress,
		"host:port of /healthz and /readyz; 0 for none")
	fs.StringVar(&r.kubeconfig, "kubeconfig", "", "file that says where the API server is; the pod's service account without it")
	fs.StringVar(&r.levelName, "log-level", "info", "least that is logged: debug, info, warn or error")
	fs.StringVar(&r.logFormat, "log-format", "json", "json or text")
	fs.BoolVar(&r.version, "version", false, "print the version and stop")
	return r
}

func usage() string { return newFlags().flags.FlagUsages() }

// parse reads and checks the arguments. The error names every one that is
// wrong, its value and what is accepted; pflag.ErrHelp asks for usage.
func parse(args []string) (settings, error) {
	r := newFlags()
	if err := r.flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return settings{}, err
		}
		return settings{}, badArguments(fmt.Errorf("%w; accepted: the flags that --help lists", err))
	}
	if r.version {
		return settings{version: true}, nil
	}
	errs := []error{r.readConfig()}
	for _, word := range r.flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	if port := r.options.Port; port < 1 || port > 65535 {
		errs = append(errs, fmt.Errorf("--webhook-port: invalid value %d; accepted: a port from 1 to 65535", port))
	}
	if r.options.CertDir == "" {
		errs = append(errs, fmt.Errorf(`--cert-dir: invalid value ""; accepted: a folder`))
	}
	errs = append(errs,
		checkAddress("metrics-bind-address", r.options.MetricsAddress),
		checkAddress("health-probe-bind-address", r.options.ProbeAddress),
		r.readLevel())
	if !slices.Contains([]string{"json", "text"}, r.logFormat) {
		errs = append(errs, fmt.Errorf("--log-format: invalid value %q; accepted: json, text", r.logFormat))
	}
	return r.settings, badArguments(errors.Join(errs...))
}

// argumentsError says what is wrong in a line for each argument.
type argumentsError struct{ error }

func (argumentsError) Is(target error) bool { return target == errArguments }
func (e argumentsError) Unwrap() error      { return e.error }

func badArguments(err error) error {
	if err == nil {
		return nil
	}
	return argumentsError{err}
}

// readConfig puts the flags on top of the file on top of the defaults.
func (r *raw) readConfig() error {
	r.config = inject.DefaultConfig()
	if r.configFile != "" {
		text, err := os.ReadFile(r.configFile)
		if err != nil {
			return fmt.Errorf("--config: %w", err)
		}
		if r.config, err = inject.ParseConfig(text); err != nil {
			return fmt.Errorf("--config %s: %w", r.configFile, err)
		}
	}
	flagOf := map[string]string{}
	for _, f := range configFlags {
		if flag := r.flags.Lookup(f.name); flag.Changed {
			f.set(&r.config, flag.Value.String())
			flagOf[f.field] = "--" + f.name
		}
	}
	var errs []error
	for _, wrong := range r.config.Validate() {
		field, rest, _ := strings.Cut(wrong.Field, "[")
		if flag, ok := flagOf[field]; ok {
			wrong.Field = strings.TrimSuffix(flag+"["+rest, "[")
		}
		errs = append(errs, wrong)
	}
	return errors.Join(errs...)
}

func (r *raw) readLevel() error {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	level, ok := levels[r.levelName]
	if !ok {
		return fmt.Errorf("--log-level: invalid value %q; accepted: debug, info, warn, error", r.levelName)
	}
	r.logLevel = level
	return nil
}

func checkAddress(flag, address string) error {
	if address == "0" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = interception.ParsePort(port)
	}
	if err != nil {
		return fmt.Errorf("--%s: invalid value %q; accepted: host:port such as :8080, or 0 for none", flag, address)
	}
	return nil
}

func (s settings) logHandler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "text" {
		return slog.NewTextHandler(w, opts)
	}
	return slog.NewJSONHandler(w, opts)
}
