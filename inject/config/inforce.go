package config

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The loopback address and the path at which a webhook serves its InForce, by
// default.
const (
	InForceAddress = "127.0.0.1:6060"
	InForcePath    = "/configuration"
)

// InForce is the configuration that a running webhook uses.
type InForce struct {
	// Version is the webhook's.
	Version  string `json:"version"`
	Revision string `json:"revision"`
	// File is the configuration's file; empty if there is none.
	File string `json:"file"`
	// Since is when this configuration was read.
	Since metav1.Time `json:"since"`
	// Error is why the file as it is now is not in force; empty if it is.
	Error string `json:"error,omitempty"`
	// NativeSidecars reports whether the API server knows native sidecars, which
	// ForAPIServer takes.
	NativeSidecars bool `json:"nativeSidecars"`
	// Configuration is what Decode reads and Encode returns.
	Configuration json.RawMessage `json:"configuration"`
}

// Encode returns the JSON document that Decode reads as the same Config. Every
// field is in it, so that defaults of another version change nothing.
func Encode(cfg Config) (json.RawMessage, error) {
	fields, err := tree(cfg)
	if err != nil {
		return nil, err
	}
	defaults, err := tree(Default())
	if err != nil {
		return nil, err
	}
	setNull(fields, defaults)
	fields["apiVersion"], fields["kind"] = APIVersion, Kind
	return json.Marshal(fields)
}

func tree(cfg Config) (fields map[string]any, err error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(text, &fields)
	return fields, err
}

// setNull sets fields that only the defaults have to null: Decode would use the
// default otherwise.
func setNull(fields, defaults map[string]any) {
	for name, value := range defaults {
		given, is := fields[name]
		if !is {
			fields[name] = nil
			continue
		}
		below, isObject := given.(map[string]any)
		if value, both := value.(map[string]any); isObject && both {
			setNull(below, value)
		}
	}
}
