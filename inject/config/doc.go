// Package config holds the injector's cluster-wide settings: the text of a file
// flows in, a Config flows out, or every error in it.
//
// A new setting is a field of Config in config.go, a check in validate.go, a row
// in docs/configuration.md and a case in inject/testdata/configs. What only the
// packages above know is validated there: inject.ParseConfig does all of it.
package config
