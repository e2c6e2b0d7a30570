{{/* The pod, the same in the Deployment and in the StatefulSet. */}}
{{- define "exporter.podTemplate" -}}
metadata:
  annotations:
    {{- if not .Values.demo }}
    checksum/config: {{ include "exporter.config" . | sha256sum }}
    {{- end }}
    kubectl.kubernetes.io/default-container: exporter
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- /* Not the chart's version: a new chart alone restarts nothing. */}}
    {{- $labels := include "exporter.selectorLabels" . | fromYaml }}
    {{- toYaml (merge $labels (deepCopy .Values.podLabels) .Values.commonLabels) | nindent 4 }}
spec:
  serviceAccountName: {{ include "exporter.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
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
        - --web.telemetry-path={{ .Values.web.telemetryPath }}
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
        - {{ . | quote }}
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
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
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
  mountPath: {{ .Values.credentials.mountPath }}
  readOnly: true
{{- end }}
{{- if .Values.identityToken.enabled }}
- name: identity-token
  mountPath: {{ .Values.identityToken.mountPath }}
  readOnly: true
{{- end }}
{{- if include "exporter.webConfigSecret" . }}
- name: web-config
  mountPath: /etc/gaussdb-mysql-backup-exporter/web
  readOnly: true
{{- end }}
{{- if and .Values.web.tls.enabled .Values.web.tls.secretName }}
- name: tls
  mountPath: /etc/gaussdb-mysql-backup-exporter/tls
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* 0440 and the pod's fsGroup: the exporter's user reads its secrets, others do not. */}}
{{- define "exporter.volumes" -}}
{{- if not .Values.demo }}
- name: config
  configMap:
    name: {{ include "exporter.fullname" . }}
{{- end }}
{{- with include "exporter.credentialsSecret" . }}
- name: credentials
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if .Values.identityToken.enabled }}
- name: identity-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.identityToken.audience | quote }}
          expirationSeconds: {{ int .Values.identityToken.expirationSeconds }}
{{- end }}
{{- with include "exporter.webConfigSecret" . }}
- name: web-config
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if and .Values.web.tls.enabled .Values.web.tls.secretName }}
- name: tls
  secret:
    secretName: {{ .Values.web.tls.secretName }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
