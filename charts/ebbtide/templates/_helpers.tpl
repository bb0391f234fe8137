{{/* Names, labels and decisions that more than one template needs. */}}

{{- define "ebbtide.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What belongs to no namespace carries the release's, so that two releases do not meet. */}}
{{- define "ebbtide.clusterName" -}}
{{- printf "%s-%s" (include "ebbtide.fullname" .) .Release.Namespace | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "ebbtide.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ebbtide.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "ebbtide.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ebbtide.image" -}}
{{- with .Values.image -}}
{{- $tag := .tag | default $.Chart.AppVersion -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository $tag -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* policy, webhook or none. */}}
{{- define "ebbtide.mode" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- .Values.injection.mode | default (ternary "policy" "webhook" $served) -}}
{{- end -}}

{{/* The settings of `ebbtide run` and their shapes, in their order in docs/settings.md. */}}
{{- define "ebbtide.settings" -}}
upstream:URL listen:ADDRESS admin:ADDRESS drain_timeout:DURATION withdraw_timeout:DURATION
settle:DURATION quiet:DURATION stop_reserve:DURATION grace:DURATION refuse_with:ANSWER
sessions:REACH session_key_file:FILE max_connections:NUMBER max_streams:NUMBER
acquire_timeout:DURATION idle_timeout:DURATION response_timeout:DURATION max_inbound:NUMBER max_header_bytes:BYTES max_headers:NUMBER
header_timeout:DURATION drain_token_file:FILE log_level:LEVEL log_format:FORMAT
{{- end -}}

{{/* A quantity as a number, to compare it with another. */}}
{{- define "ebbtide.number" -}}
{{- $units := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $unit := regexFind "[a-zA-Z]*$" . -}}
{{- mulf (trimSuffix $unit . | float64) (get $units $unit | default 1.0) -}}
{{- end -}}

{{/* Half of the sidecar's resources, as `ebbtide inject --requests` takes them. */}}
{{- define "ebbtide.quantities" -}}
{{- $resources := .context.Values.sidecar.resources -}}
{{- $entries := list -}}
{{- range $name, $quantity := get $resources .half -}}
{{- $request := get ($resources.requests | default dict) $name -}}
{{- if and (eq $.half "limits") $request (lt (include "ebbtide.number" (toString $quantity) | float64) (include "ebbtide.number" (toString $request) | float64)) -}}
{{- fail (printf "sidecar.resources: the limit of %s, %v, is below what is requested of it, %v: no pod with the sidecar could start" $name $quantity $request) -}}
{{- end -}}
{{- $entries = append $entries (printf "%s=%v" $name $quantity) -}}
{{- end -}}
{{- join "," $entries -}}
{{- end -}}

{{/*
The namespaces in which pods may be injected. Where `labelled` is given: true for those whose own
label says so, false for all the others, where a pod's label has to.
*/}}
{{- define "ebbtide.namespaceSelector" -}}
{{- $own := .context.Values.injection.namespaceSelector -}}
{{- with $own.matchLabels }}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{- end }}
matchExpressions:
  # Never the control plane, never what injects.
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: [kube-system, {{ .context.Release.Namespace }}]
  {{- if hasKey . "labelled" }}
  - key: ebbtide.dev/inject
    operator: {{ ternary "In" "NotIn" .labelled }}
    values: [enabled]
  {{- end }}
  {{- with $own.matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "ebbtide.objectSelector" -}}
matchExpressions:
  - key: ebbtide.dev/inject
    operator: {{ ternary "NotIn" "In" .labelled }}
    values: [{{ ternary "disabled" "enabled" .labelled }}]
{{- end -}}

{{- define "ebbtide.annotations" -}}
{{- with .Values.commonAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* The webhook's objects in the release's namespace. */}}
{{- define "ebbtide.webhookName" -}}
{{- include "ebbtide.fullname" . }}-webhook
{{- end -}}

{{- define "ebbtide.webhookLabels" -}}
{{ include "ebbtide.selectorLabels" . }}
app.kubernetes.io/component: webhook
{{- end -}}

{{- define "ebbtide.certificateSecret" -}}
{{- with .Values.webhook.certificate -}}
{{- if eq .source "secret" -}}
{{- required "webhook.certificate.secretName: source `secret` needs the name of a Secret of type kubernetes.io/tls" .secretName -}}
{{- else -}}
{{- include "ebbtide.webhookName" $ }}-tls
{{- end -}}
{{- end -}}
{{- end -}}
