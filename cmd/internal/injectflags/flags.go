// Package injectflags reads the injector's configuration from flags and a
// file, for the webhook and the command line alike. Arguments flow in, an
// config.Config or an error that names the flags flows out.
package injectflags

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
)

const configFile = "config"

// DefaultPolicy is the name of a flag that only an injector needs that asks a
// namespace.
const DefaultPolicy = "default-policy"

// definition is a flag that sets one field of the configuration.
type definition struct {
	name, usage string
	field       string // of config.Config, as its Validate names it
	set         func(*config.Config, string)
	get         func(config.Config) string
}

var definitions = []definition{
	{
		"init-image", "image of the init container", "initImage",
		func(c *config.Config, v string) { c.InitImage = v }, func(c config.Config) string { return c.InitImage },
	},
	{
		"proxy-image", "image of the proxy, with envoy on its PATH", "proxyImage",
		func(c *config.Config, v string) { c.ProxyImage = v }, func(c config.Config) string { return c.ProxyImage },
	},
	{
		"revision", "revision of this injector, a DNS label", "revision",
		func(c *config.Config, v string) { c.Revision = v }, func(c config.Config) string { return c.Revision },
	},
	{
		"backend", "iptables backend of shunt-init: auto, nft or legacy", "backend",
		func(c *config.Config, v string) { c.Backend = interception.Backend(v) },
		func(c config.Config) string { return string(c.Backend) },
	},
	{
		DefaultPolicy, "whether pods are injected that nothing else decides about: enabled or disabled", "defaultPolicy",
		func(c *config.Config, v string) { c.DefaultPolicy = config.Policy(v) },
		func(c config.Config) string { return string(c.DefaultPolicy) },
	},
}

// Add puts the flags into fs, but for those in except.
func Add(fs *pflag.FlagSet, except ...string) {
	fs.String(configFile, "", "injector configuration file, YAML or JSON; flags override it")
	for _, def := range definitions {
		if !slices.Contains(except, def.name) {
			fs.String(def.name, def.get(config.Default()), def.usage)
		}
	}
}

// File is the path that the flags name; empty where they name none.
func File(fs *pflag.FlagSet) string { return fs.Lookup(configFile).Value.String() }

// Config returns the configuration that parsed flags ask for: the flags on
// top of the file on top of config.Default. The error joins one for
// every setting that is wrong, with its flag or path, its value and what is
// accepted.
func Config(fs *pflag.FlagSet) (config.Config, error) {
	cfg, _, err := ConfigAndOrigins(fs)
	return cfg, err
}

// ConfigAndOrigins returns also who set the fields of the configuration, by
// their paths; those that are absent have their defaults.
func ConfigAndOrigins(fs *pflag.FlagSet) (config.Config, map[string]string, error) {
	origins := map[string]string{}
	path := File(fs)
	if path == "" {
		cfg, err := over(fs, config.Default())
		return cfg, ofFlags(fs, origins), err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return config.Config{}, nil, fmt.Errorf("--%s: %w", configFile, err)
	}
	cfg, err := Parse(fs, text)
	if err != nil {
		return config.Config{}, nil, err
	}
	fields, err := config.Fields(text)
	for _, field := range fields {
		origins[field] = "configuration file (" + field + ")"
	}
	return cfg, ofFlags(fs, origins), err
}

// ofFlags puts what flags set over what the file sets.
func ofFlags(fs *pflag.FlagSet, origins map[string]string) map[string]string {
	for _, def := range definitions {
		if flag := fs.Lookup(def.name); flag != nil && flag.Changed {
			origins[def.field] = "flag --" + def.name
		}
	}
	return origins
}

// ReadFile is Config where the file is all that is said.
func ReadFile(path string) (config.Config, error) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	Add(fs)
	if err := fs.Set(configFile, path); err != nil {
		return config.Config{}, err
	}
	return Config(fs)
}

// Parse is Config where the file has been read. It is for a file that is read
// again: the flags win over each of its versions.
func Parse(fs *pflag.FlagSet, text []byte) (config.Config, error) {
	cfg, err := inject.ParseConfig(text)
	if err != nil {
		return config.Config{}, Faults(fmt.Sprintf("--%s %s: ", configFile, File(fs)), err)
	}
	return over(fs, cfg)
}

// Faults joins one error, a line with the prefix, for everything that
// inject.ParseConfig found wrong.
func Faults(prefix string, err error) error {
	found := []error{err}
	var several utilerrors.Aggregate
	if errors.As(err, &several) {
		found = several.Errors()
	}
	all := make([]error, len(found))
	for i, fault := range found {
		all[i] = fmt.Errorf("%s%w", prefix, fault)
	}
	return errors.Join(all...)
}

// over sets what flags say over cfg.
func over(fs *pflag.FlagSet, cfg config.Config) (config.Config, error) {
	flagOf := map[string]string{}
	for _, def := range definitions {
		if flag := fs.Lookup(def.name); flag != nil && flag.Changed {
			def.set(&cfg, flag.Value.String())
			flagOf[def.field] = "--" + def.name
		}
	}
	var errs []error
	for _, wrong := range inject.ValidateConfig(cfg) {
		field, index, _ := strings.Cut(wrong.Field, "[")
		if flag, ok := flagOf[field]; ok {
			wrong.Field = strings.TrimSuffix(flag+"["+index, "[")
		}
		errs = append(errs, wrong)
	}
	return cfg, errors.Join(errs...)
}
