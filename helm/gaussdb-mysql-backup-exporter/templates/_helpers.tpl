{{- define "exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 52: a StatefulSet's pods carry its name with -N and a hash of 10 in their labels. The name is a
     Service's too, which begins with a letter and has no dots; a release's may be otherwise. */}}
{{- define "exporter.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = .Release.Name | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $name -}}
{{- $name = printf "release-%s" $name -}}
{{- end -}}
{{- if not (contains (include "exporter.name" .) $name) -}}
{{- $name = printf "%s-%s" $name (include "exporter.name" .) -}}
{{- end -}}
{{- end -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "exporter.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
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
{{- $labels := merge (deepCopy (.extra | default dict)) .context.Values.commonLabels -}}
{{- toYaml (merge $own (include "exporter.tpl" (dict "context" .context "value" $labels) | fromYaml)) -}}
{{- end -}}

{{- define "exporter.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* A value of the user's with the templates in it filled in: a text as text, all else as YAML. Call
     with (dict "context" $ "value" ...). */}}
{{- define "exporter.tpl" -}}
{{- if kindIs "string" .value -}}
{{- contains "{{" .value | ternary (tpl .value .context) .value -}}
{{- else -}}
{{- (include "exporter.filled" . | fromJson).it | toYaml -}}
{{- end -}}
{{- end -}}

{{/* Text by text, never the YAML as a whole: whatever a template gives stays the text that it is. */}}
{{- define "exporter.filled" -}}
{{- $context := .context -}}
{{- $it := .value -}}
{{- if contains "{{" (toJson .value) -}}
{{- if kindIs "string" .value -}}
{{- $it = tpl .value $context -}}
{{- else if kindIs "map" .value -}}
{{- $it = dict -}}
{{- range $key, $item := .value -}}
{{- $_ := set $it (tpl $key $context) (include "exporter.filled" (dict "context" $context "value" $item) | fromJson).it -}}
{{- end -}}
{{- else -}}
{{- $it = list -}}
{{- range .value -}}
{{- $it = append $it (include "exporter.filled" (dict "context" $context "value" .) | fromJson).it -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson (dict "it" $it) -}}
{{- end -}}

{{/* Annotations of a resource: its own win over commonAnnotations. Call with (dict "context" $ "own" ...). */}}
{{- define "exporter.annotations" -}}
{{- with merge (deepCopy (.own | default dict)) .context.Values.commonAnnotations }}
annotations:
  {{- include "exporter.tpl" (dict "context" $.context "value" .) | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "exporter.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with (.Values.global).imageRegistry | default .Values.image.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* global.imagePullSecrets are names or {name: ...}: other charts take either. */}}
{{- define "exporter.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat ((.Values.global).imagePullSecrets | default list) .Values.imagePullSecrets -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with $secrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- include "exporter.tpl" (dict "context" . "value" .Values.serviceAccount.name) | default (include "exporter.fullname" .) -}}
{{- else -}}
{{- include "exporter.tpl" (dict "context" . "value" .Values.serviceAccount.name) | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "exporter.credentialsSecret" -}}
{{- if .Values.credentials.existingSecret -}}
{{- include "exporter.tpl" (dict "context" . "value" .Values.credentials.existingSecret) -}}
{{- else if .Values.credentials.data -}}
{{- printf "%s-credentials" (include "exporter.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "exporter.webConfigSecret" -}}
{{- if .Values.web.existingConfigSecret -}}
{{- include "exporter.tpl" (dict "context" . "value" .Values.web.existingConfigSecret) -}}
{{- else if or .Values.web.tls.enabled .Values.web.basicAuth.enabled -}}
{{- printf "%s-web-config" (include "exporter.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the certificate; empty without TLS, or where a web configuration of the user's names files of its own. */}}
{{- define "exporter.tlsSecret" -}}
{{- if .Values.web.tls.enabled -}}
{{- include "exporter.tpl" (dict "context" . "value" .Values.web.tls.secretName) -}}
{{- end -}}
{{- end -}}

{{/* The Secret with a user's name and password; empty without basic auth. */}}
{{- define "exporter.clientSecret" -}}
{{- if .Values.web.basicAuth.enabled -}}
{{- include "exporter.tpl" (dict "context" . "value" .Values.web.basicAuth.clientSecret.name) -}}
{{- end -}}
{{- end -}}

{{- define "exporter.externalUrl" -}}
{{- include "exporter.tpl" (dict "context" . "value" .Values.web.externalUrl) | trimSuffix "/" -}}
{{- end -}}

{{- define "exporter.scheme" -}}
{{- ternary "https" "http" .Values.web.tls.enabled -}}
{{- end -}}

{{/* The configuration: projects of the map behind those of the list, in the order of their names; templates in it are filled in. */}}
{{- define "exporter.config" -}}
{{- $config := dict -}}
{{- range $section, $content := omit .Values.config "projectsByName" -}}
{{- if $content -}}
{{- $_ := set $config $section $content -}}
{{- end -}}
{{- end -}}
{{- with include "exporter.projects" . | fromYamlArray -}}
{{- $_ := set $config "projects" . -}}
{{- end -}}
{{- include "exporter.tpl" (dict "context" . "value" $config) -}}
{{- end -}}

{{- define "exporter.projects" -}}
{{- $projects := .Values.config.projects | default list -}}
{{- range $name, $project := .Values.config.projectsByName -}}
{{- if $project -}}
{{- $projects = append $projects (merge (deepCopy $project) (dict "name" $name)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $projects -}}
{{- end -}}

{{/* "true" where the chart makes the configuration's ConfigMap, else empty. */}}
{{- define "exporter.ownConfig" -}}
{{- if not (or .Values.demo .Values.existingConfig.secret .Values.existingConfig.configMap) -}}
true
{{- end -}}
{{- end -}}

{{/* Where the configuration comes from: a volume's source, empty in the demo. */}}
{{- define "exporter.configSource" -}}
{{- with .Values.existingConfig -}}
{{- if .secret -}}
secret:
  secretName: {{ include "exporter.tpl" (dict "context" $ "value" .secret) | quote }}
  defaultMode: 0440
  items:
    - key: {{ .key | quote }}
      path: config.yaml
{{- else if .configMap -}}
configMap:
  name: {{ include "exporter.tpl" (dict "context" $ "value" .configMap) | quote }}
  items:
    - key: {{ .key | quote }}
      path: config.yaml
{{- end -}}
{{- end -}}
{{- if include "exporter.ownConfig" . -}}
configMap:
  name: {{ include "exporter.fullname" . | quote }}
{{- end -}}
{{- end -}}

{{/* A probe's handler and times; call with (dict "context" $ "probe" .Values.xProbe "path" "/-/..."). */}}
{{- define "exporter.probe" -}}
{{- $web := .context.Values.web -}}
{{- if or $web.basicAuth.enabled $web.tls.clientCAKey -}}
{{/* The kubelet has no password and no certificate to show. The image's health check runs beside the
     program: an answer of any kind, also "401", proves that it answers. */}}
exec:
  command: [python3, /opt/exporter/healthcheck.py]
{{- else }}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ include "exporter.scheme" .context | upper }}
{{- end }}
{{ toYaml (omit .probe "enabled") }}
{{- end -}}
