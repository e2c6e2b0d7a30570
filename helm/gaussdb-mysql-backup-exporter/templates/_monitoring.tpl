{{/* What every scrape of the exporter has in common, for ServiceMonitor and PodMonitor alike.
     Call with (dict "context" $ "monitor" .Values.xMonitor), and "target" where one instance is asked for. */}}
{{- define "exporter.endpoint" -}}
{{- $context := .context -}}
{{- $monitor := .monitor -}}
{{- $target := .target -}}
{{- $name := include "exporter.fullname" $context -}}
port: http
scheme: {{ include "exporter.scheme" $context }}
# The exporter owns the label `instance`: it names the database, not the pod.
honorLabels: true
{{- range $key := list "interval" "scrapeTimeout" "proxyUrl" }}
{{- with get $monitor $key }}
{{ $key }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- include "exporter.clientTls" (dict "context" $context "tlsConfig" $monitor.tlsConfig) }}
{{- include "exporter.clientLogin" $context }}
{{- if $target }}
params:
  project:
    - {{ $target.project | quote }}
  instance:
    - {{ $target.instance | quote }}
{{- else if or $context.Values.scrapeConfig.enabled $monitor.targets }}
# The instances come through /probe.
params:
  collect[]:
    - exporter
{{- end }}
{{- $relabelings := $monitor.relabelings }}
{{- with $target }}
{{- /* All targets have the exporter's address: told apart by what they ask for. */}}
{{- $relabelings = concat (list (dict "targetLabel" "project" "replacement" .project) (dict "targetLabel" "instance" "replacement" .instance)) $relabelings }}
{{- end }}
{{- if not (contains $context.Chart.Name $name) }}
{{- /* The job is the Service's name; the alerts know our jobs by the chart's name in it. */}}
{{- $relabelings = prepend $relabelings (dict "targetLabel" "job" "replacement" (printf "%s/%s" $context.Chart.Name $name)) }}
{{- end }}
{{- with $relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Keys of a monitor's spec that are passed on as they are. */}}
{{- define "exporter.monitorSpec" -}}
{{- range $key := list "jobLabel" "scrapeClass" "bodySizeLimit" "fallbackScrapeProtocol" "sampleLimit" "labelLimit" "labelNameLengthLimit" "labelValueLengthLimit" "targetLimit" "keepDroppedTargets" }}
{{- with get $.monitor $key }}
{{ $key }}: {{ toYaml . }}
{{- end }}
{{- end }}
{{- range $key := list "targetLabels" "podTargetLabels" "attachMetadata" "scrapeProtocols" }}
{{- with get $.monitor $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* How Prometheus checks our certificate: as the user says, else by the CA beside it and the name of the Service. */}}
{{- define "exporter.clientTls" -}}
{{- if .context.Values.web.tls.enabled }}
tlsConfig:
  {{- if .tlsConfig }}
  {{- toYaml .tlsConfig | nindent 2 }}
  {{- else }}
  ca:
    secret:
      name: {{ include "exporter.tlsSecret" .context | quote }}
      key: ca.crt
  serverName: {{ printf "%s.%s.svc" (include "exporter.fullname" .context) (include "exporter.namespace" .context) | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* How Prometheus logs in. */}}
{{- define "exporter.clientLogin" -}}
{{- with include "exporter.clientSecret" . }}
basicAuth:
  username:
    name: {{ . | quote }}
    key: {{ $.Values.web.basicAuth.clientSecret.usernameKey | quote }}
  password:
    name: {{ . | quote }}
    key: {{ $.Values.web.basicAuth.clientSecret.passwordKey | quote }}
{{- end }}
{{- end -}}
