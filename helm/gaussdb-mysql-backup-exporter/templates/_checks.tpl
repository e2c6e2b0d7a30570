{{/*
What the values' schema cannot say, with a message that tells what to do. Empty where all is well.
*/}}
{{- define "exporter.checkValues" -}}
{{- $v := .Values -}}
{{- $given := or $v.existingConfig.secret $v.existingConfig.configMap -}}
{{- $projects := include "exporter.projects" . | fromYamlArray -}}
{{- if and $v.existingConfig.secret $v.existingConfig.configMap -}}
{{- fail "existingConfig.secret and existingConfig.configMap exclude each other: keep one" -}}
{{- end -}}
{{- if and $given (or $projects $v.config.defaults $v.config.api $v.config.scrape) -}}
{{- fail "existingConfig would hide config: drop one of the two" -}}
{{- end -}}
{{- if and $given $v.demo -}}
{{- fail "demo=true would hide existingConfig: drop one of the two" -}}
{{- end -}}
{{- if and (not $v.demo) (not $given) (not $projects) -}}
{{- fail "config.projects is empty: name at least one project, or set demo=true to look around on the built-in simulator" -}}
{{- end -}}
{{- if and $v.demo $projects -}}
{{- fail "demo=true would hide config.projects: drop one of the two" -}}
{{- end -}}
{{- if and $v.credentials.existingSecret $v.credentials.data -}}
{{- fail "credentials.existingSecret and credentials.data exclude each other: keep one" -}}
{{- end -}}
{{- if and $v.identityToken.enabled (not $v.identityToken.audience) -}}
{{- fail "identityToken.enabled needs identityToken.audience: the client ID of the identity provider in IAM" -}}
{{- end -}}
{{- $hasTokenFile := or $v.identityToken.enabled $v.extraEnvFrom -}}
{{- range $v.extraEnv -}}
{{- if eq .name "HUAWEICLOUD_OIDC_TOKEN_FILE" -}}
{{- $hasTokenFile = true -}}
{{- end -}}
{{- end -}}
{{- $listed := len ($v.config.projects | default list) -}}
{{- range $i, $project := $projects -}}
{{- $auth := $project.auth | default dict -}}
{{- if and (eq (get $auth "type") "oidc") (not $auth.token_file) (not $hasTokenFile) -}}
{{- $where := lt $i $listed | ternary (printf "config.projects[%d]" $i) (printf "config.projectsByName: %v" $project.name) -}}
{{- fail (printf "%s.auth: type oidc has no token to show: set identityToken.enabled=true with its audience, or token_file" $where) -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int $v.shards) 1) (semverCompare "<1.28.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "shards > 1 needs Kubernetes 1.28, which labels each pod with its index; this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $v.web.tls.enabled (not $v.web.existingConfigSecret) (not $v.web.tls.secretName) -}}
{{- fail "web.tls.enabled needs web.tls.secretName: a Secret of type kubernetes.io/tls" -}}
{{- end -}}
{{- if and $v.web.tls.clientCAKey (not $v.web.tls.enabled) -}}
{{- fail "web.tls.clientCAKey needs web.tls.enabled=true" -}}
{{- end -}}
{{- if and $v.web.basicAuth.enabled (not $v.web.existingConfigSecret) (not $v.web.basicAuth.users) -}}
{{- fail "web.basicAuth.enabled needs web.basicAuth.users: at least one name with its bcrypt hash" -}}
{{- end -}}
{{- range $name, $hash := $v.web.basicAuth.users -}}
{{- if not (regexMatch "^\\$2[aby]\\$[0-9]{2}\\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}$" $hash) -}}
{{- fail (printf "web.basicAuth.users.%s is no bcrypt hash: make one with htpasswd -nBC 10 %s" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and $v.web.existingConfigSecret $v.web.basicAuth.users -}}
{{- fail "web.existingConfigSecret holds the users: drop web.basicAuth.users" -}}
{{- end -}}
{{- if and $v.web.existingConfigSecret (not $v.web.tls.enabled) (not $v.web.basicAuth.enabled) -}}
{{- fail "web.existingConfigSecret: say what it holds with web.tls.enabled or web.basicAuth.enabled, for the probes and the ServiceMonitor" -}}
{{- end -}}
{{- range $kind := list "serviceMonitor" "podMonitor" "scrapeConfig" -}}
{{- $monitor := get $v $kind -}}
{{- if $monitor.enabled -}}
{{- if and $v.web.basicAuth.enabled (not $v.web.basicAuth.clientSecret.name) -}}
{{- fail (printf "%s.enabled with web.basicAuth needs web.basicAuth.clientSecret.name: the Secret with the user's name and password that Prometheus sends" $kind) -}}
{{- end -}}
{{- if and $v.web.tls.enabled (not $monitor.tlsConfig) (not $v.web.tls.secretName) -}}
{{- fail (printf "%s.enabled with web.tls needs %s.tlsConfig: how Prometheus checks the certificate" $kind $kind) -}}
{{- end -}}
{{- $certificate := or (dig "cert" "" $monitor.tlsConfig) (dig "certFile" "" $monitor.tlsConfig) -}}
{{- $key := or (dig "keySecret" "" $monitor.tlsConfig) (dig "keyFile" "" $monitor.tlsConfig) -}}
{{- if and $v.web.tls.clientCAKey (not (and $certificate $key)) -}}
{{- fail (printf "%s.enabled with web.tls.clientCAKey needs %s.tlsConfig.cert and .keySecret: the certificate that Prometheus shows" $kind $kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.podMonitor.enabled $v.serviceMonitor.enabled -}}
{{- fail "serviceMonitor and podMonitor would scrape the same pods twice: keep one" -}}
{{- end -}}
{{- if and $v.serviceMonitor.targets $v.scrapeConfig.enabled -}}
{{- fail "serviceMonitor.targets and scrapeConfig would scrape the same instances twice: keep one" -}}
{{- end -}}
{{- if and $v.serviceMonitor.targets (gt (int $v.shards) 1) -}}
{{- fail "serviceMonitor.targets with shards > 1 would ask every shard for every instance: use scrapeConfig" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- fail "ingress.enabled needs ingress.hosts: at least one host name" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs: the Gateway that it belongs to" -}}
{{- end -}}
{{- include "exporter.refuseSecrets" (dict "node" $v.config "path" "config" "mountPath" $v.credentials.mountPath) -}}
{{- end -}}

{{/*
The configuration lies in a ConfigMap, which is no place for a secret. Walks the whole tree: a key
that holds one may only name a variable of the environment.
*/}}
{{- define "exporter.refuseSecrets" -}}
{{- $mountPath := .mountPath -}}
{{- $path := .path -}}
{{- if kindIs "map" .node -}}
{{- range $key, $value := .node -}}
{{- $here := printf "%s.%s" $path $key -}}
{{- if and (has $key (list "password" "secret_key" "token" "security_token")) (kindIs "string" $value) (not (regexMatch "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$" $value)) -}}
{{- if eq $key "security_token" -}}
{{- fail (printf "%s holds a secret, and a ConfigMap is no place for one: write ${NAME} here and set NAME with extraEnv from a Secret" $here) -}}
{{- else -}}
{{- fail (printf "%s holds a secret, and a ConfigMap is no place for one: put it into a Secret (credentials.existingSecret) and write %s_file: %s/KEY instead" $here $key $mountPath) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $key "proxy_url") (kindIs "string" $value) (regexMatch "//[^/]*@" $value) (not (regexMatch "//[^/:@]*(:\\$\\{[A-Za-z_][A-Za-z0-9_]*\\})?@" $value)) -}}
{{- fail (printf "%s holds a password, and a ConfigMap is no place for one: write ${NAME} in its place and set NAME with extraEnv from a Secret" $here) -}}
{{- end -}}
{{- include "exporter.refuseSecrets" (dict "node" $value "path" $here "mountPath" $mountPath) -}}
{{- end -}}
{{- else if kindIs "slice" .node -}}
{{- range $index, $value := .node -}}
{{- include "exporter.refuseSecrets" (dict "node" $value "path" (printf "%s[%d]" $path $index) "mountPath" $mountPath) -}}
{{- end -}}
{{- end -}}
{{- end -}}
