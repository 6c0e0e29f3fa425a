// Package injectflags reads the injector's configuration from flags and a
// file, for the webhook and the command line alike. Arguments flow in, a
// config.Config or an error that names the flags flows out.
package injectflags

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
)

// Names of the flags. Everything else stands in the file. The revision is a flag
// because the injectors of several revisions may read the same file.
const (
	configFile = "config"
	revision   = "revision"
)

// Add puts the flags into fs.
func Add(fs *pflag.FlagSet) {
	fs.String(configFile, "", "injector configuration file, YAML or JSON, or a ConfigMap that holds it")
	fs.String(revision, config.Default().Revision, "revision of this injector, a DNS label; overrides the file's")
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
func ConfigAndOrigins(fs *pflag.FlagSet) (cfg config.Config, origins map[string]string, err error) {
	origins = map[string]string{}
	if path := File(fs); path == "" {
		cfg, err = override(fs, config.Default())
	} else {
		cfg, err = readFile(fs, path, origins)
	}
	if err != nil {
		return config.Config{}, nil, err
	}
	if fs.Changed(revision) {
		origins[revision] = "flag --" + revision
	}
	return cfg, origins, nil
}

// readFile reads the configuration, and notes the origins of the fields that it
// sets.
func readFile(fs *pflag.FlagSet, path string, origins map[string]string) (config.Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return config.Config{}, fmt.Errorf("--%s: %w", configFile, err)
	}
	cfg, err := Parse(fs, text, Beside(path))
	if err != nil {
		return config.Config{}, err
	}
	if text, _, _, err = OfConfigMap(text, nil); err != nil {
		return config.Config{}, err
	}
	fields, err := config.Fields(text)
	for _, field := range fields {
		origins[field] = "configuration file (" + field + ")"
	}
	return cfg, err
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

// Beside reads files of the same folder.
func Beside(path string) config.ReadFile {
	return func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(filepath.Dir(path), name)) }
}

// Parse is Config where the file has been read. It is for a file that is read
// again: the flags win over each of its versions. A ConfigMap may hold it.
func Parse(fs *pflag.FlagSet, text []byte, beside config.ReadFile) (config.Config, error) {
	text, _, beside, err := OfConfigMap(text, beside)
	if err != nil {
		return config.Config{}, fmt.Errorf("--%s %s: %w", configFile, File(fs), err)
	}
	cfg, err := inject.ParseConfigFile(text, beside)
	if err != nil {
		return config.Config{}, Faults(fmt.Sprintf("--%s %s: ", configFile, File(fs)), err)
	}
	return override(fs, cfg)
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

// override sets the revision that the flag names in a configuration that is
// valid without it.
func override(fs *pflag.FlagSet, cfg config.Config) (config.Config, error) {
	if !fs.Changed(revision) {
		return cfg, nil
	}
	cfg.Revision = fs.Lookup(revision).Value.String()
	var errs []error
	for _, wrong := range inject.ValidateConfig(cfg) {
		wrong.Field = "--" + revision
		errs = append(errs, wrong)
	}
	return cfg, errors.Join(errs...)
}
