{{/* The pod, the same in the Deployment and in the StatefulSet. */}}
{{- define "exporter.podTemplate" -}}
{{- $annotations := dict "kubectl.kubernetes.io/default-container" "exporter" }}
{{- if include "exporter.ownConfig" . }}
{{- $_ := set $annotations "checksum/config" (include "exporter.config" . | sha256sum) }}
{{- end }}
metadata:
  {{- include "exporter.annotations" (dict "context" . "own" (merge $annotations .Values.podAnnotations)) | trim | nindent 2 }}
  labels:
    {{- /* Not the chart's version: a new chart alone restarts nothing. */}}
    {{- $labels := merge (include "exporter.selectorLabels" . | fromYaml) (deepCopy .Values.podLabels) .Values.commonLabels }}
    {{- include "exporter.tpl" (dict "context" . "value" $labels) | nindent 4 }}
spec:
  serviceAccountName: {{ include "exporter.serviceAccountName" . | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "exporter.imagePullSecrets" . | nindent 2 }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.dnsPolicy }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.schedulerName }}
  schedulerName: {{ . | quote }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  terminationGracePeriodSeconds: {{ int64 .Values.terminationGracePeriodSeconds }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- include "exporter.tpl" (dict "context" $ "value" .) | nindent 4 }}
  {{- end }}
  containers:
    - name: exporter
      image: {{ include "exporter.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        {{- if .Values.demo }}
        - --demo
        {{- else }}
        - --config.file=/etc/gaussdb-mysql-backup-exporter/config/config.yaml
        {{- end }}
        - --web.listen-address=:{{ .Values.containerPort }}
        - {{ printf "--web.telemetry-path=%s" .Values.web.telemetryPath | quote }}
        {{- with include "exporter.externalUrl" . }}
        - {{ printf "--web.external-url=%s" . | quote }}
        {{- end }}
        {{- if include "exporter.webConfigSecret" . }}
        - --web.config.file=/etc/gaussdb-mysql-backup-exporter/web/web-config.yaml
        {{- end }}
        {{- if .Values.web.enableLifecycle }}
        - --web.enable-lifecycle
        {{- end }}
        {{- if gt (int .Values.shards) 1 }}
        - --shard=$(POD_INDEX)
        - --total-shards={{ .Values.shards }}
        {{- end }}
        - --log.level={{ .Values.log.level }}
        - --log.format={{ .Values.log.format }}
        {{- range .Values.extraArgs }}
        - {{ include "exporter.tpl" (dict "context" $ "value" .) | quote }}
        {{- end }}
      {{- if or (gt (int .Values.shards) 1) .Values.identityToken.enabled .Values.extraEnv }}
      env:
        {{- if .Values.identityToken.enabled }}
        - name: HUAWEICLOUD_OIDC_TOKEN_FILE
          value: {{ printf "%s/token" .Values.identityToken.mountPath | quote }}
        {{- end }}
        {{- if gt (int .Values.shards) 1 }}
        - name: POD_INDEX
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- include "exporter.tpl" (dict "context" $ "value" .) | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- include "exporter.tpl" (dict "context" $ "value" .) | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: {{ .Values.containerPort }}
          protocol: TCP
      {{- range $kind, $path := dict "liveness" "/-/healthy" "readiness" "/-/ready" "startup" "/-/healthy" }}
      {{- $probe := index $.Values (printf "%sProbe" $kind) }}
      {{- if $probe.enabled }}
      {{ $kind }}Probe:
        {{- include "exporter.probe" (dict "context" $ "probe" $probe "path" $path) | trim | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- with .Values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- $mounts := include "exporter.volumeMounts" . | trim }}
      {{- with $mounts }}
      volumeMounts:
        {{- . | nindent 8 }}
      {{- end }}
    {{- with .Values.extraContainers }}
    {{- include "exporter.tpl" (dict "context" $ "value" .) | nindent 4 }}
    {{- end }}
  {{- $volumes := include "exporter.volumes" . | trim }}
  {{- with $volumes }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $own := dict "labelSelector" (dict "matchLabels" (include "exporter.selectorLabels" $ | fromYaml)) }}
    - {{ hasKey . "labelSelector" | ternary . (merge $own .) | toYaml | nindent 6 | trim }}
    {{- end }}
  {{- end }}
{{- end -}}

{{/* Whole folders, never single files of them (subPath): only so does a changed Secret arrive. */}}
{{- define "exporter.volumeMounts" -}}
{{- if not .Values.demo }}
- name: config
  mountPath: /etc/gaussdb-mysql-backup-exporter/config
  readOnly: true
{{- end }}
{{- if include "exporter.credentialsSecret" . }}
- name: credentials
  mountPath: {{ .Values.credentials.mountPath | quote }}
  readOnly: true
{{- end }}
{{- if .Values.identityToken.enabled }}
- name: identity-token
  mountPath: {{ .Values.identityToken.mountPath | quote }}
  readOnly: true
{{- end }}
{{- if include "exporter.webConfigSecret" . }}
- name: web-config
  mountPath: /etc/gaussdb-mysql-backup-exporter/web
  readOnly: true
{{- end }}
{{- if include "exporter.tlsSecret" . }}
- name: tls
  mountPath: /etc/gaussdb-mysql-backup-exporter/tls
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ include "exporter.tpl" (dict "context" $ "value" .) }}
{{- end }}
{{- end -}}

{{/* 0440 and the pod's fsGroup: the exporter's user reads its secrets, others do not. */}}
{{- define "exporter.volumes" -}}
{{- with include "exporter.configSource" . }}
- name: config
  {{- . | nindent 2 }}
{{- end }}
{{- with include "exporter.credentialsSecret" . }}
- name: credentials
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- if .Values.identityToken.enabled }}
- name: identity-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.identityToken.audience | quote }}
          expirationSeconds: {{ int64 .Values.identityToken.expirationSeconds }}
{{- end }}
{{- with include "exporter.webConfigSecret" . }}
- name: web-config
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- with include "exporter.tlsSecret" . }}
- name: tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ include "exporter.tpl" (dict "context" $ "value" .) }}
{{- end }}
{{- end -}}
