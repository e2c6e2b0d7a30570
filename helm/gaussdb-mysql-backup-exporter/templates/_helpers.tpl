{{- define "exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 52: a StatefulSet's pods carry its name with -N and a hash of 10 in their labels. */}}
{{- define "exporter.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "exporter.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: exporter
{{- end -}}

{{/* All labels of a resource, each key once. Call with (dict "context" $), and where they differ
     "component" (default: exporter) and "extra" (labels of the values, which win over commonLabels). */}}
{{- define "exporter.labels" -}}
{{- $own := include "exporter.selectorLabels" .context | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/component" (.component | default "exporter") -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .context.Release.Service -}}
{{- $_ := set $own "app.kubernetes.io/version" .context.Chart.AppVersion -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- toYaml (merge $own (deepCopy (.extra | default dict)) .context.Values.commonLabels) -}}
{{- end -}}

{{- define "exporter.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "exporter.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "exporter.credentialsSecret" -}}
{{- if .Values.credentials.existingSecret -}}
{{- .Values.credentials.existingSecret -}}
{{- else if .Values.credentials.data -}}
{{- printf "%s-credentials" (include "exporter.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "exporter.webConfigSecret" -}}
{{- if .Values.web.existingConfigSecret -}}
{{- .Values.web.existingConfigSecret -}}
{{- else if or .Values.web.tls.enabled .Values.web.basicAuth.enabled -}}
{{- printf "%s-web-config" (include "exporter.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "exporter.scheme" -}}
{{- ternary "https" "http" .Values.web.tls.enabled -}}
{{- end -}}

{{- define "exporter.config" -}}
{{- $config := dict -}}
{{- range $section, $content := .Values.config -}}
{{- if $content -}}
{{- $_ := set $config $section $content -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* A probe's handler and times; call with (dict "context" $ "probe" .Values.xProbe "path" "/-/..."). */}}
{{- define "exporter.probe" -}}
{{- $web := .context.Values.web -}}
{{- if or $web.basicAuth.enabled $web.tls.clientCAKey -}}
{{/* The kubelet has no password and no certificate to show: it can only see that we listen. */}}
tcpSocket:
  port: http
{{- else }}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ include "exporter.scheme" .context | upper }}
{{- end }}
{{ toYaml (omit .probe "enabled") }}
{{- end -}}
