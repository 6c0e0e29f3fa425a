{{- /* What the names of a revision's objects end with. */ -}}
{{- define "shunt.suffix" -}}
{{- if ne .Values.revision "default" }}-{{ .Values.revision }}{{ end -}}
{{- end }}

{{- define "shunt.name" -}}
shunt-webhook{{ include "shunt.suffix" . }}
{{- end }}

{{- define "shunt.certificateSecret" -}}
shunt-webhook-cert{{ include "shunt.suffix" . }}
{{- end }}

{{- define "shunt.labels" -}}
app.kubernetes.io/name: {{ include "shunt.name" . }}
app.kubernetes.io/part-of: shunt
{{- end }}

{{- define "shunt.selector" -}}
app.kubernetes.io/name: {{ include "shunt.name" . }}
{{- end }}

{{- /* Of the objects that are in a namespace. */ -}}
{{- define "shunt.metadata" -}}
name: {{ include "shunt.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "shunt.labels" . | nindent 2 }}
{{- end }}

{{- /* What is the same in every webhook, before its selectors: dict "root" . "name" NAME */ -}}
{{- define "shunt.webhook" -}}
- name: {{ .name }}
  clientConfig:
    service:
      name: {{ include "shunt.name" .root }}
      namespace: {{ .root.Release.Namespace }}
      path: /mutate--v1-pod
      port: 443
  rules:
  - operations: [CREATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    scope: Namespaced
  # A pod that should be injected must not start without the proxy.
  failurePolicy: Fail
  # If a later webhook changes the pod, Shunt is called again. Injection is idempotent.
  reinvocationPolicy: IfNeeded
  matchPolicy: Equivalent
  # A call has no side effects that would have to be undone if the pod is not created.
  sideEffects: None
  timeoutSeconds: {{ .root.Values.webhooks.timeoutSeconds }}
  admissionReviewVersions: [v1]
{{- end }}

{{- /* The namespaces of the cluster itself and of Shunt: a webhook that is away must not keep the pods from starting that could
bring it back. */ -}}
{{- define "shunt.exempt" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values: {{ append .Values.webhooks.exemptNamespaces .Release.Namespace | toJson }}
{{- end }}
