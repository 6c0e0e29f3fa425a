package envoy

// overloadManager makes Envoy reject new work near its container's memory limit:
// beyond it, the kernel would kill Envoy with all its connections.
func (b builder) overloadManager() []field {
	if b.MemoryLimit == 0 {
		return nil
	}
	action := func(name, trigger string, condition ...field) object {
		return object{
			set("name", "envoy.overload_actions."+name),
			set("triggers", list{object{set("name", heapMonitor), set(trigger, object(condition))}}),
		}
	}
	at := func(name string, share float64) object { return action(name, "threshold", set("value", share)) }
	actions := list{at("shrink_heap", .80), at("stop_accepting_connections", .95)}
	if b.readsHTTP() {
		actions = append(actions, at("disable_http_keepalive", .85), at("stop_accepting_requests", .90),
			action("reset_high_memory_stream", "scaled", set("scaling_threshold", .85), set("saturation_threshold", .95)))
	}
	manager := object{
		set("resource_monitors", list{extension(heapMonitor, "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
			set("max_heap_size_bytes", int(b.MemoryLimit/10*9)))}),
		set("actions", actions),
	}
	if b.readsHTTP() {
		manager = append(manager, set("buffer_factory_config", object{set("minimum_account_to_track_power_of_two", 20)}))
	}
	return []field{explained("Near its container's memory limit, of which the heap is the most, Envoy takes no new work.",
		"overload_manager", manager)}
}

const heapMonitor = "envoy.resource_monitors.fixed_heap"
