// Package config holds the injector's cluster-wide settings: the text of a file
// flows in, a Config flows out, or every error in it.
//
// A new setting is a field of Config in config.go, a check in validate.go, a row
// in docs/configuration.md and a case in inject/testdata/configs. Some checks need
// packages above this one and are there: inject.ParseConfig runs all of them.
package config
