package config_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/inject/config"
)

const document = "apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\n"

func decode(t *testing.T, text string) config.Config {
	t.Helper()
	cfg, unknown, err := config.Decode([]byte(text))
	if err != nil || len(unknown) > 0 {
		t.Fatalf("error %v, unknown fields %v in\n%s", err, unknown, text)
	}
	return cfg
}

// TestEncode checks that Decode reads what Encode writes as the same
// configuration, also if it has less than the default.
func TestEncode(t *testing.T) {
	texts := map[string]string{
		"default":         document,
		"no limits":       document + "proxyResources: {limits: null}\ninitResources: {limits: null, requests: null}\n",
		"zeros and empty": document + "concurrency: 0\nhttpLimits: {headerTimeout: 0s}\ntproxyPortRange: ''\ndropInvalid: false\n",
		"never a default": document + "nativeSidecar: unsupported\n",
	}
	files, err := filepath.Glob("../testdata/configs/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, error %v", len(files), err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(archive.Files[1].Data) == "accepted\n" {
			texts[file] = string(archive.Files[0].Data)
		}
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			want := decode(t, text)
			encoded, err := config.Encode(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, decode(t, string(encoded))); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDifferences(t *testing.T) {
	for _, test := range []struct {
		name, before, after string
		want                []string
	}{
		{"none", "# a comment\nproxyResources: {limits: {memory: 1024Mi}}\ndrainDuration: 25000ms\n", "", nil},
		{
			"in the order of the fields", "", "revision: canary\nproxyResources: {limits: {memory: 512Mi}}\ninitImage: mine:v1\n",
			[]string{"initImage: shunt-init -> mine:v1", "proxyResources.limits.memory: 1Gi -> 512Mi", "revision: default -> canary"},
		},
		{
			"added, removed and empty", "allowedProxyImages: [a.example, b.example]\ncomponentLogLevel: http:debug\n",
			"allowedProxyImages: [a.example]\nimagePullSecrets: [{name: mine}]\nproxyResources: {limits: {example.com/gpu: 1}}\n",
			[]string{
				"allowedProxyImages: a.example,b.example -> a.example", `imagePullSecrets: unset -> [{"name":"mine"}]`,
				"proxyResources.limits.example.com/gpu: unset -> 1", "componentLogLevel: http:debug -> unset",
			},
		},
		{
			"below others", "templates: {a: {container: {image: one}}}\n",
			"templates: {a: {container: {image: two}}}\nsidecar: {type: custom}\n",
			[]string{"sidecar.type: envoy -> custom", "templates.a.container.image: one -> two"},
		},
		{
			"a limit that is gone", "", "proxyResources: {limits: null}\n",
			[]string{"proxyResources.limits.cpu: 2 -> unset", "proxyResources.limits.memory: 1Gi -> unset"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, d := range config.Differences(decode(t, document+test.before), decode(t, document+test.after)) {
				got = append(got, d.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
		})
	}
}
