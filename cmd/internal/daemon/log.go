package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// Log holds the values of the flags of a log.
type Log struct{ level, format string }

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// Add adds the flags.
func (l *Log) Add(flags *pflag.FlagSet) {
	flags.StringVar(&l.level, "log-level", "info", "least that is logged: debug, info, warn or error")
	flags.StringVar(&l.format, "log-format", "json", "json or text")
}

// Check checks the flags' values.
func (l *Log) Check() error {
	var errs []error
	if _, known := levels[l.level]; !known {
		errs = append(errs, fmt.Errorf("--log-level: invalid value %q; accepted: debug, info, warn, error", l.level))
	}
	if l.format != "json" && l.format != "text" {
		errs = append(errs, fmt.Errorf("--log-format: invalid value %q; accepted: json, text", l.format))
	}
	return errors.Join(errs...)
}

// Handler returns a handler that writes as the flags say, one line each.
func (l *Log) Handler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: levels[l.level]}
	if l.format == "text" {
		return slog.NewTextHandler(w, opts)
	}
	return slog.NewJSONHandler(w, opts)
}
