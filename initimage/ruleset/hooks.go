package ruleset

// maxRules bounds a walk. A rule set that a kernel has accepted stays far below it.
// One that jumps in circles, which no kernel accepts, ends here.
const maxRules = 1 << 16

// maxDepth is the number of jumps that nf_tables allows (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// sealed reports whether nothing that follows can change the packet's fate.
func (h *traversal) sealed() bool {
	return h.fate == Dropped || h.fate == Rejected || h.fate == Unknown
}

// passHook walks the chains of one hook, in the kernel's order. A packet of this
// host that is routed again may leave by another interface, but until the end of
// the hook its chains see the first one.
func (h *traversal) passHook(hook string) {
	h.hook, h.translated = hook, false
	if !h.sealed() {
		h.enter(hook)
	}
	seen, leaves := h.out, h.out
	for i := range h.stack.hooks[hook] {
		b := &h.stack.hooks[hook][i]
		if h.sealed() {
			break
		}
		if b.nat && (h.translated || h.skipsNAT()) {
			h.begin(b, h.whyNotNAT())
			continue
		}
		h.begin(b, "")
		entering := hook == "PREROUTING" || hook == "OUTPUT"
		h.tracked = h.looped && !h.hasState(Invalid) || !entering || b.priority > priorityConntrack
		before := h.Packet
		if h.survey != nil {
			h.survey.remember()
		}
		h.pass(b)
		h.end(&before)
		if hook == "OUTPUT" && h.reroutes(b, &before, leaves) {
			h.chooseInterface()
			leaves, h.out = h.out, seen
		}
	}
	h.out = leaves
}

// reroutes reports whether the kernel routes a packet again that a chain of OUTPUT
// has changed. nat does not look at marks.
func (h *traversal) reroutes(b *base, before *Packet, leaves string) bool {
	return b.reroutes && !h.sealed() && h.changedSince(before, leaves) && (!b.nat || before.Dst != h.Dst)
}

// pass walks one chain, and applies its policy at its end.
func (h *traversal) pass(b *base) {
	h.native, h.compiled = b.foreign && b.chain.Base != nil, !b.foreign && b.chain.Base != nil
	if end := h.walk(b, b.chain, 0); end != actionAccept && b.chain.Policy == string(Drop) && !h.sealed() {
		h.addStep(b, b.chain, 0, Rule{Target: Drop}, true, 0)
		h.seal(Dropped)
	}
}

func (h *traversal) skipsNAT() bool {
	return h.looped || !h.opensTracked()
}

// opensTracked reports whether the packet opens a connection that conntrack tracks.
func (h *traversal) opensTracked() bool { return h.hasState(New, Related) }

func (h *traversal) seal(f Fate) { h.fate, h.port = f, 0 }

// walk goes through a chain until a rule ends it.
func (h *traversal) walk(b *base, chain *Chain, depth int) action {
	for i := range chain.Rules {
		rule := &chain.Rules[i]
		if h.rulesMet++; h.rulesMet > maxRules {
			h.seal(Unknown)
			return actionStop
		}
		if !h.meets(rule) {
			if h.sealed() {
				return actionStop
			}
			continue
		}
		h.ownRule = !b.foreign && !chain.foreign(*rule)
		h.addStep(b, chain, i+1, *rule, !h.ownRule, depth)
		end := h.apply(b, rule, depth)
		if h.sealed() {
			return actionStop
		}
		switch end {
		case actionReturn:
			return actionContinue
		case actionAccept, actionStop:
			return end
		}
	}
	h.leave(b, chain, depth)
	return actionContinue
}

func (h *traversal) apply(b *base, rule *Rule, depth int) action {
	target, _ := rule.Target.(OpaqueTarget)
	passive := rule.passive()
	if passive && !target.settles() {
		return actionContinue
	}
	if h.assumed == nil && rule.opaque() && !h.stack.decided[rule] {
		h.undecided = rule
		h.seal(Unknown)
		return actionStop
	}
	if passive {
		return target.pass(h)
	}
	end := rule.Target.apply(h)
	if end != actionJump {
		return end
	}
	jump, _ := rule.jump()
	next := b.chains[jump.Chain]
	if next == nil || depth == maxDepth {
		h.seal(Unknown)
		return actionStop
	}
	end = h.walk(b, next, depth+1)
	if jump.Goto && end == actionContinue {
		return actionReturn // to the caller of this chain
	}
	return end
}

func (h *traversal) meets(r *Rule) bool {
	for _, m := range r.Matches {
		if _, opaque := m.(OpaqueMatch); opaque && !h.accepts(r) || !opaque && !m.matches(h) {
			return false
		}
	}
	return true
}
