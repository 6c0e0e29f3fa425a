package check

// Run reports on everything that can be known from a snapshot. The findings are in
// the order in which a person would look: whether the API server calls the webhook,
// whether it gets an answer, and what the pods have.
func Run(snapshot Snapshot) []Finding {
	var report report
	installations := snapshot.installations()
	if len(installations) == 0 {
		report.add(Fail, Registration, "MutatingWebhookConfiguration", "there is no webhook of Shunt (*.shunt.dev); "+
			"accepted: the one of config/default")
	}
	revisions, all := map[string]bool{}, true
	for _, in := range installations {
		report.registration(in)
		report.certificates(snapshot, in)
		report.deployed(in)
		cfg, ok := report.configured(snapshot, in)
		if ok {
			report.pods(snapshot, in, cfg)
		}
		revisions[cfg.Revision], all = true, all && ok
	}
	if all {
		report.orphans(snapshot, revisions)
	}
	return report.findings
}
