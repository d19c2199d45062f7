{{- /* Fails where a variable would put a secret into the Deployment, or take the place of one of the chart's own. */ -}}
{{- define "mrcond.checkVariable" -}}
{{- $from := .from -}}
{{- if regexMatch "_(MONGO|RABBITMQ|RABBITMQ_STREAM)_URI(_FILE)?$" .name -}}
{{- fail (printf "%s.%s: the URIs are files of secrets, which secrets.mongoUri, secrets.rabbitmqUri and secrets.rabbitmqStreamUri name" $from .name) -}}
{{- end -}}
{{- if hasKey . "value" -}}
{{- $named := regexMatch "(_HEADERS|_URI|PASSWORD|SECRET|TOKEN|API_?KEY)$" (upper .name) -}}
{{- if or $named (regexMatch "://[^/?#]*@" .value) -}}
{{- fail (printf "%s.%s: this is a secret, and everybody who may look at the Deployment would see it: put it into a Secret, and name that in extraEnv (valueFrom.secretKeyRef) or envFrom" $from .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mrcond.env" -}}
- name: MRCON_MONGO_URI_FILE
  value: /run/secrets/mrcond/mongo_uri
- name: MRCON_RABBITMQ_URI_FILE
  value: /run/secrets/mrcond/rabbitmq_uri
{{- if (.Values.secrets.rabbitmqStreamUri).name }}
- name: MRCON_RABBITMQ_STREAM_URI_FILE
  value: /run/secrets/mrcond/rabbitmq_stream_uri
{{- end }}
{{- range $name, $value := .Values.env }}
{{- include "mrcond.checkVariable" (dict "from" "env" "name" $name "value" $value) }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range .Values.extraEnv }}
{{- include "mrcond.checkVariable" (merge (dict "from" "extraEnv") .) }}
{{ toYaml (list .) }}
{{- end }}
{{- end -}}
