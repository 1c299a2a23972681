{{- define "poolwright.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "poolwright.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "poolwright.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "poolwright.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "poolwright.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: name the account in serviceAccount.name" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* What a Deployment finds its pods by. It can never change, so nothing that users set is in it. */}}
{{- define "poolwright.selector" -}}
app.kubernetes.io/name: {{ include "poolwright.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* All labels of an object, as a map; commonLabels do not replace ours. */}}
{{- define "poolwright.labels" -}}
{{- include "poolwright.labelsWith" (dict "root" . "fixed" dict) -}}
{{- end }}

{{/* The same with more that are ours: of (dict "root" $ "fixed" map). One map, since a key that stands in it and below it
would be there twice. */}}
{{- define "poolwright.labelsWith" -}}
{{- $fixed := .fixed -}}
{{- with .root -}}
{{- $own := include "poolwright.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "poolwright" -}}
{{- $_ := set $own "app.kubernetes.io/version" (.Chart.AppVersion | toString) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- merge $own $fixed (default dict .Values.commonLabels) | toYaml -}}
{{- end -}}
{{- end }}

{{/* An image's whole name: of (dict "image" … "tag" default tag). */}}
{{- define "poolwright.image" -}}
{{- $name := .image.repository -}}
{{- if .image.registry -}}{{- $name = printf "%s/%s" .image.registry $name -}}{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .tag .image.tag) -}}
{{- end -}}
{{- end }}

{{- define "poolwright.port" -}}
{{- regexFind "[0-9]+$" .Values.operator.httpAddress -}}
{{- end }}

{{/* Not empty where the metrics are for some only. */}}
{{- define "poolwright.guarded" -}}
{{- if or (eq .Values.metrics.guard "always") (and (eq .Values.metrics.guard "auto") (eq .Values.rbac.scope "cluster")) }}true{{ end -}}
{{- end }}

{{/* The names of this release's roles and bindings for the whole cluster, by kind. */}}
{{- define "poolwright.clusterNames" -}}
{{- $name := include "poolwright.fullname" . -}}
{{- $both := list -}}
{{- $roles := list -}}
{{- if .Values.rbac.create -}}
{{- if eq .Values.rbac.scope "cluster" -}}{{- $both = append $both $name -}}{{- end -}}
{{- if include "poolwright.guarded" . -}}{{- $both = append $both (include "poolwright.reviews" .) -}}{{- end -}}
{{- if .Values.rbac.userRoles.create -}}
{{- range list "viewer" "queue-editor" "editor" "metrics-reader" -}}{{- $roles = append $roles (printf "%s-%s" $name .) -}}{{- end -}}
{{- end -}}
{{- if .Values.rbac.secretsClusterRole.create -}}{{- $roles = append $roles "poolwright-secrets" -}}{{- end -}}
{{- end -}}
{{- dict "ClusterRole" (concat $both $roles) "ClusterRoleBinding" $both | toYaml -}}
{{- end }}

{{/* The role by which the operator asks who reads its metrics. */}}
{{- define "poolwright.reviews" -}}
{{- printf "%s-%s-reviews" (include "poolwright.fullname" .) .Release.Namespace -}}
{{- end }}

{{/* What a monitor scrapes, and how: of (dict "monitor" … "root" $). Our series have a label `namespace` of their own, that of
the object. A certificate is the Service's, and what is scraped are addresses of pods. */}}
{{- define "poolwright.endpoint" -}}
port: http
path: /metrics
honorLabels: true
{{- if .root.Values.metrics.tls.secretName }}
scheme: https
tlsConfig:
  {{- merge (deepCopy (default dict .monitor.tlsConfig)) (dict "serverName" (printf "%s.%s.svc" (include "poolwright.fullname" .root) .root.Release.Namespace)) | toYaml | nindent 2 }}
{{- end }}
{{- with .monitor }}
{{- with .interval }}
interval: {{ . | quote }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . | quote }}
{{- end }}
{{- with .authorization }}
authorization:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the operator may do, and nothing that it does not do. The same in a ClusterRole and in a Role. */}}
{{- define "poolwright.rules" -}}
# What users write is only read; what is known of it goes to the status.
- apiGroups: [poolwright.dev]
  resources: [pools, taskqueues, workerpools]
  verbs: [list, watch]
- apiGroups: [poolwright.dev]
  resources: [pools/status, taskqueues/status, workerpools/status]
  verbs: [patch]
# A Pool is read anew before slots of it are given; default-pool is made where a namespace with queues has none; one that
# mirrors a pool of Airflow follows it, and one for which such a pool was made is marked.
- apiGroups: [poolwright.dev]
  resources: [pools]
  verbs: [get, create, patch]
# A Deployment for each revision of a WorkerPool; replicas go through /scale.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [update]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
# Pods are marked with the order in which they should go; never created or deleted.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# Loads that Pools and WorkerPools heed may stand in ConfigMaps, which are read by name.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
# Others that scale the same objects are found, and only named.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
