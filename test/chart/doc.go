// Package chart holds the Helm chart in charts/shunt to the manifests in
// config: with the values for it, the chart gives the objects that kustomize
// gives. It is a module of its own, because it links Helm and kustomize.
package chart
