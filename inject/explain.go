package inject

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/sidecar"
	"github.com/shunt-dev/shunt/inject/strict"
)

// fromDefault is the origin of a setting that nobody has set.
const fromDefault = "default"

// Setting is a setting of one pod.
type Setting struct {
	// Name is the configuration's field, or the annotation's key if there is no
	// such field.
	Name string `json:"name"`
	// Value is empty if there is none.
	Value string `json:"value"`
	// From is where the value came from: an annotation with its place and key, the
	// caller's text for the configuration's field, or the default. There are
	// several if one adds to another, or gives way to something.
	From []string `json:"from"`
}

// Explanation is the decision about a pod, and the settings that led to it.
type Explanation struct {
	Decision
	Warnings []string
	// Settings are the pod's; none if it is skipped or denied.
	Settings []Setting
}

// Explain decides as Injector.Inject does, and returns where the pod's settings
// came from. given has the origin of each field of the configuration that is
// set, by the field's path.
func Explain(pod *corev1.Pod, ns annotation.Namespace, cfg config.Config, given map[string]string) Explanation {
	in := NewInjector(cfg)
	injected := in.Inject(pod, ns)
	plan, result := injected.Plan, Explanation{Decision: injected.Decision, Warnings: injected.Warnings}
	if plan == nil {
		return result
	}
	req, _ := annotation.Read(pod, ns)
	e := explainer{req: req, plan: plan, asked: cfg, given: given}
	edit, _ := podplan.Undo(pod, podplan.VolumeNames(sidecar.Volumes(req, cfg)))
	e.effective = req.Override(cfg, edit.Pod())
	proxy := plan.Containers.Proxy()
	e.effective.ProxyImage, e.effective.ProxyResources = proxy.Image, proxy.Resources
	if plan.Guaranteed {
		e.effective.InitResources, _ = sidecar.Equalize(annotation.Request{}, cfg.InitResources)
	}
	result.Settings = append(e.annotated(), e.configured()...)
	return result
}

// explainer finds the origins of one pod's settings.
type explainer struct {
	req              annotation.Request
	plan             *podplan.Plan
	asked, effective config.Config // without and with the annotations
	given            map[string]string
}

// annotated returns the settings that are not fields of the configuration.
// Several keys may stand for one setting.
func (e explainer) annotated() []Setting {
	var settings []Setting
	told := map[string]bool{}
	for _, row := range annotation.Table() {
		if !row.IsSetting() || row.Field != "" || row.Key == annotation.ProxyConfigKey || row.Flag != "" && told[row.Flag] ||
			row.OfRules() && e.plan.Mode == interception.ModeNone || row.Envoy && e.asked.Sidecar.Type == config.SidecarCustom {
			continue
		}
		told[row.Flag] = true
		settings = append(settings, e.setting(row))
	}
	return settings
}

// setting returns the setting of a row without a field of the configuration.
func (e explainer) setting(row annotation.Row) Setting {
	setting := Setting{Name: row.Key, Value: row.Default, From: e.from(func(other annotation.Row) bool {
		return other.Key == row.Key || row.Flag != "" && other.Flag == row.Flag
	})}
	switch {
	case row.Key == annotation.InterceptionModeKey:
		setting.Value = string(e.plan.Mode)
	case row.OfRules():
		setting.Value = interception.Values(e.plan.Spec, e.plan.Options)[row.Flag]
	case len(setting.From) > 0:
		setting.Value = e.req.Source.Text(row.Key)
	}
	if len(setting.From) == 0 || row.Adds {
		setting.From = append(setting.From, fromDefault)
	}
	return setting
}

// from returns the annotations that are set, of those that match.
func (e explainer) from(asked func(annotation.Row) bool) []string {
	var from []string
	for _, row := range annotation.Table() {
		if row.IsSetting() && asked(row) && e.req.Source.Has(row.Key) {
			from = append(from, e.annotation(row.Key))
		}
	}
	return from
}

// annotation returns a key with its place.
func (e explainer) annotation(key string) string { return string(e.req.Source.Place(key)) + " " + key }

// configured returns the settings that are fields of the configuration, in its
// order.
func (e explainer) configured() []Setting {
	fields := map[string][]config.Leaf{}
	for _, l := range config.Leaves(e.effective) {
		top, _, below := strings.Cut(l.Path, ".")
		if below && l.Value == "" {
			continue // Kubernetes' types always have it in their JSON
		}
		fields[top] = append(fields[top], l)
	}
	var settings []Setting
	for _, name := range strict.JSONNames[config.Config]() {
		if e.unused(name) {
			continue
		}
		all := slices.Concat(fields[name], e.takenAway(name, fields[name]))
		if len(all) == 0 {
			all = []config.Leaf{{Path: name}}
		}
		for _, l := range all {
			settings = append(settings, Setting{Name: l.Path, Value: l.Value, From: e.fromField(l.Path)})
		}
	}
	return settings
}

// unused reports whether a field has no effect on the pod's proxy.
func (e explainer) unused(field string) bool {
	switch field {
	case "templates": // a setting only of the pods that name it
		return true
	case "excludeOutboundIPRanges":
		return e.plan.Mode == interception.ModeNone // in which nothing is intercepted
	}
	return e.asked.Sidecar.Type == config.SidecarCustom && annotation.ForEnvoy(field)
}

// takenAway returns the fields that an annotation removes, such as a limit
// set to 0.
func (e explainer) takenAway(top string, there []config.Leaf) []config.Leaf {
	var all []config.Leaf
	for _, row := range annotation.Table() {
		if strings.HasPrefix(row.Field, top+".") && e.req.Source.Has(row.Key) &&
			!slices.ContainsFunc(there, func(l config.Leaf) bool { return l.Path == row.Field }) {
			all = append(all, config.Leaf{Path: row.Field})
		}
	}
	return all
}

// fromField returns where the value of a field of the configuration came from.
func (e explainer) fromField(path string) []string {
	adds := false
	from := e.from(func(row annotation.Row) bool {
		adds = adds || row.Field == path && row.Adds
		return row.Field == path
	})
	if e.req.SetByProxyConfig(path) {
		from = []string{e.annotation(annotation.ProxyConfigKey)}
	}
	if len(from) == 0 || adds {
		from = append(from, e.origin(path))
	}
	if gaveWay := e.gaveWay(path); gaveWay != "" {
		from = append(from, gaveWay)
	}
	return from
}

// origin returns where a field's value came from if no annotation set it. A
// custom sidecar's container overrides the image and resources.
func (e explainer) origin(path string) string {
	if name := e.template(path); name != "" {
		return "template " + name
	}
	if e.asked.Sidecar.Type == config.SidecarCustom {
		within := strings.Replace(strings.Replace(path, "proxyImage", "image", 1), "proxyResources", "resources", 1)
		if from, there := e.given["sidecar.container."+within]; there && within != path {
			return from
		}
	}
	if from, there := e.given[path]; there {
		return from
	}
	return fromDefault
}

// template returns which of the pod's templates sets a field of the sidecar's
// image or resources, or nothing.
func (e explainer) template(path string) string {
	for _, name := range slices.Backward(e.req.Templates) {
		c := e.asked.Templates[name].Container
		below, ofResources := strings.CutPrefix(path, "proxyResources.")
		switch {
		case c == nil:
		case path == "proxyImage" && c.Image != "",
			ofResources && slices.ContainsFunc(config.Leaves(c.Resources), func(l config.Leaf) bool { return l.Path == below }):
			return name
		}
	}
	return ""
}

// gaveWay returns why a value was adapted to the pod, or nothing.
func (e explainer) gaveWay(path string) string {
	drain := cmp.Or(e.req.ProxyConfig.Drain, e.asked.DrainDuration.Duration)
	dns := cmp.Or(e.req.DNSCapture, e.asked.DNSCapture)
	switch {
	case path == "drainDuration" && e.effective.DrainDuration.Duration < drain:
		return "lowered for the pod's terminationGracePeriodSeconds"
	case e.plan.Guaranteed && e.levelled(path):
		return "request and limit made equal, because the pod is Guaranteed"
	case e.followed(path):
		return "made equal to the other of request and limit, which alone is set"
	case path == "dnsCapture" && e.effective.DNSCapture != dns:
		return "nothing is captured in mode " + string(e.plan.Mode)
	default:
		return ""
	}
}

// followed reports whether a request or limit of the proxy was made equal to the
// other one, which alone is set.
func (e explainer) followed(path string) bool {
	whose, which, _ := strings.Cut(path, ".")
	kind, name, _ := strings.Cut(which, ".")
	if whose != "proxyResources" || !slices.Contains(sidecar.QoSResources, corev1.ResourceName(name)) {
		return false
	}
	request, limit := e.req.ProxyResources.Of(corev1.ResourceName(name))
	requested, now, before := request, e.effective.ProxyResources.Limits, e.asked.ProxyResources.Limits
	if kind == "requests" {
		requested, now, before = limit, e.effective.ProxyResources.Requests, e.asked.ProxyResources.Requests
	}
	is, was := now[corev1.ResourceName(name)], before[corev1.ResourceName(name)]
	return (request == nil) != (limit == nil) && requested != nil && requested.Cmp(is) == 0 && is.Cmp(was) != 0
}

// levelled reports whether a request or limit was changed to keep the pod
// Guaranteed.
func (e explainer) levelled(path string) bool {
	whose, which, _ := strings.Cut(path, ".")
	kind, name, _ := strings.Cut(which, ".")
	if whose != "initResources" && whose != "proxyResources" || !slices.Contains(sidecar.QoSResources, corev1.ResourceName(name)) {
		return false
	}
	asked, before := annotation.Request{}, e.asked.InitResources
	if whose == "proxyResources" {
		asked, before = e.req, e.req.ProxyResources.Override(e.asked.ProxyResources)
	}
	requestSet, limitSet := sidecar.Asked(asked, corev1.ResourceName(name))
	limit := before.Limits[corev1.ResourceName(name)]
	ofRequest := requestSet && !limitSet || !limitSet && limit.Sign() <= 0
	return (!requestSet || !limitSet) && (kind == "limits") == ofRequest
}
