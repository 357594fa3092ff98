// The Prometheus operator's CustomResourceDefinitions, for tests; nothing of it is built.
module certwright.dev/monitoring-crds

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
