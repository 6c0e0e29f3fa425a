package cluster

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// TestPod finds a pod by what people type.
func TestPod(t *testing.T) {
	type object = map[string]any
	pod := func(name, hash, kind, owner, created string) object {
		return object{"metadata": object{
			"name": name, "namespace": "shop", "creationTimestamp": created, "labels": object{"pod-template-hash": hash},
			"ownerReferences": []object{{"kind": kind, "name": owner, "controller": true}},
		}}
	}
	old, young := "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"
	ended := pod("echo-5b9-c", "5b9", "ReplicaSet", "echo-5b9", "2026-11-22T00:00:00Z")
	ended["status"] = object{"phase": "Succeeded"}
	pods := []object{
		pod("echo-5b9-a", "5b9", "ReplicaSet", "echo-5b9", young), pod("echo-5b9-b", "5b9", "ReplicaSet", "echo-5b9", old), ended,
		pod("both-1", "", "StatefulSet", "both", old), pod("both-2", "", "DaemonSet", "both", old), pod("job-x", "", "Job", "job", old),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		name, one := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/shop/pods/")
		for _, p := range pods {
			if one && p["metadata"].(object)["name"] == name {
				_ = json.NewEncoder(w).Encode(p)
				return
			}
		}
		if one {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(object{"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404})
			return
		}
		_ = json.NewEncoder(w).Encode(object{"kind": "PodList", "apiVersion": "v1", "items": pods})
	}))
	t.Cleanup(server.Close)
	c, err := connect(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ kind, name, want string }{
		{"", "echo-5b9-b", "echo-5b9-b"}, {"Pod", "echo-5b9-b", "echo-5b9-b"},
		{"", "echo", "echo-5b9-a"}, {"Deployment", "echo", "echo-5b9-a"}, {"ReplicaSet", "echo-5b9", "echo-5b9-a"},
		{"StatefulSet", "both", "both-1"}, {"daemonset", "both", "both-2"}, {"Job", "job", "job-x"},
		{"", "both", "error: namespace shop has pods of several workloads both: DaemonSet, StatefulSet"},
		{"Pod", "echo", "error: namespace shop has no pod echo"}, {"", "nobody", "error: namespace shop has neither"},
		{"StatefulSet", "echo", "error: namespace shop has no pod of StatefulSet echo"},
	} {
		got, err := c.pod(t.Context(), "shop", test.kind, test.name)
		switch {
		case err != nil && !strings.HasPrefix("error: "+err.Error(), test.want), err == nil && got.Name != test.want:
			t.Errorf("%s %s: %v, want %s", test.kind, test.name, err, test.want)
		}
	}
}

func TestNamed(t *testing.T) {
	for args, want := range map[string]string{
		"echo": "|echo", "pod/echo": "Pod|echo", "po echo": "Pod|echo", "deployment/echo": "Deployment|echo",
		"deploy echo":          "Deployment|echo",
		"deployment.apps/echo": "Deployment|echo", "sts/db": "StatefulSet|db", "Rollout/echo": "Rollout|echo",
		"": "", "a b c": "", "a/b c": "", "/echo": "", "pod/": "",
	} {
		kind, name, err := Named(strings.Fields(args)...)
		if got := kind + "|" + name; got != want && (err == nil || want != "") {
			t.Errorf("%q: %s, %v; want %s", args, got, err, want)
		}
	}
}
