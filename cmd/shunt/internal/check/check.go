package check

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
)

// Run reports on everything that can be known from a snapshot. The findings are in
// the order in which a person would look: whether the API server calls the webhook,
// whether it gets an answer, what the pods have and whether they run, which are not
// created, and what asks for the proxy in vain.
func Run(snapshot Snapshot) []Finding {
	report := newReport(snapshot)
	for _, resource := range slices.Sorted(maps.Keys(snapshot.Unread)) {
		report.add(Warn, NotChecked, resource, "%v", snapshot.Unread[resource])
	}
	installations := snapshot.installations()
	if len(installations) == 0 && !snapshot.cannotRead(resourceWebhooks) {
		report.add(Fail, Registration, "MutatingWebhookConfiguration", "there is no webhook of Shunt (*.shunt.dev); "+
			"accepted: the one of config/default")
	}
	revisions, all := sets.Set[string]{}, true
	var injectors []ownInjector
	var fromNodes []string
	for _, in := range installations {
		report.registration(in)
		report.certificates(snapshot, in)
		report.deployed(snapshot, in)
		cfg, ok := report.configured(snapshot, in)
		if ok {
			injector := ownInjector{in, inject.NewInjector(cfg.Config)}
			injectors = append(injectors, injector)
			report.pods(snapshot, injector, cfg)
			if cfg.InterceptFrom == config.InterceptFromNode {
				fromNodes = append(fromNodes, in.object())
			}
		}
		revisions.Insert(cfg.Revision)
		all = all && ok
	}
	if all && !snapshot.cannotRead(resourceWebhooks) {
		report.orphans(snapshot, revisions)
	}
	report.agents(snapshot, fromNodes)
	report.failing(snapshot)
	report.denied(snapshot)
	var served sets.Set[string]
	if all && len(installations) > 0 {
		served = servedRevisions(snapshot.Webhooks).Union(revisions)
	}
	report.ignored(snapshot, injectors, served)
	return report.told()
}
