package check

// Run says of all that can be known from a snapshot whether it is well. The
// findings are in the order in which somebody would look: first whether the
// API server asks, then whether it is answered, then what the pods have.
func Run(s Snapshot) []Finding {
	var r report
	installations := s.installations()
	if len(installations) == 0 {
		r.add(Fail, Registration, "MutatingWebhookConfiguration", "there is no webhook of Shunt (*.shunt.dev); "+
			"accepted: the one of config/default")
	}
	revisions, all := map[string]bool{}, true
	for _, in := range installations {
		r.registration(in)
		r.certificates(s, in)
		r.deployed(in)
		cfg, ok := r.configured(s, in)
		if ok {
			r.pods(s, in, cfg)
		}
		revisions[cfg.Revision], all = true, all && ok
	}
	if all {
		r.orphans(s, revisions)
	}
	return r.findings
}
