{{/*
What the policies know of a pod, as CEL variables: which container is the server, on which port it
listens, what its annotations ask for, and in `refusal` why it cannot be injected, or nothing. The
same decisions as in src/cli/podspec; a test in the cluster compares the two.
*/}}
{{- define "ebbtide.variables" -}}
{{- $prefix := "config.ebbtide.dev/" -}}
{{- $quantities := "^(cpu|memory|ephemeral-storage)=[0-9]{1,9}([.][0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$" -}}
- name: pod
  expression: {{ .pod }}
- name: containers
  expression: variables.pod.spec.containers
- name: annotations
  expression: variables.pod.?metadata.?annotations.orValue({})
- name: settings
  expression: >-
    variables.annotations.filter(name, name.startsWith('{{ $prefix }}'))
    .map(name, name.substring({{ len $prefix }}))
# What each setting's value looks like, as far as an expression tells.
- name: shapes
  expression: >-
    {{ include "ebbtide.shapes" . | nindent 4 | trim }}
- name: unknown
  expression: >-
    variables.settings.filter(name, !(name in variables.shapes ||
      name in ['port', 'after', 'secret', 'requests', 'limits']))
- name: misfits
  expression: >-
    variables.settings.filter(name, name in variables.shapes &&
      !variables.annotations['{{ $prefix }}' + name].matches(variables.shapes[name]))

# The Secret whose keys are the sidecar's only files, and the settings that name another.
- name: secret
  expression: variables.annotations[?'{{ $prefix }}secret'].orValue('')
- name: secretFits
  expression: >-
    !('secret' in variables.settings) || variables.secret.size() <= 253 && variables.secret
    .matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')
- name: unseen
  expression: >-
    variables.settings.filter(name, name in {{ include "ebbtide.files" . }} &&
      (variables.secret == '' || !variables.annotations['{{ $prefix }}' + name]
      .matches('^/etc/ebbtide/secret/[^/]+$')))

# The server: the one container with that port.
- name: asked
  expression: variables.annotations[?'{{ $prefix }}port'].orValue('')
- name: number
  expression: "variables.asked.matches('^[0-9]{1,5}$') ? int(variables.asked) : 0"
- name: name
  expression: >-
    variables.asked != '' ? variables.asked :
    variables.containers.exists(container, container.?ports.orValue([]).exists(port,
      port.?name.orValue('') == 'mcp' && port.?protocol.orValue('TCP') == 'TCP')) ? 'mcp' : 'http'
- name: matching
  expression: >-
    variables.containers.map(container, container.?ports.orValue([]).transformList(index, port,
      port.?protocol.orValue('TCP') == 'TCP' &&
      (variables.number > 0 ? port.containerPort == variables.number
        : port.?name.orValue('') == variables.name),
      index))
- name: candidates
  expression: variables.matching.transformList(index, ports, ports.size() > 0, index)
- name: undeclared
  expression: >-
    variables.number > 0 && variables.number < 65536 && variables.candidates.size() == 0 &&
    variables.containers.size() == 1
- name: found
  expression: >-
    variables.undeclared || (variables.candidates.size() == 1 &&
    variables.matching[variables.candidates[0]].size() == 1)

# What the sidecar's port is called, and how many ports of others are called so, too.
- name: offered
  expression: >-
    variables.undeclared ? 'mcp' : variables.containers[variables.candidates[0]]
    .ports[variables.matching[variables.candidates[0]][0]].?name.orValue('mcp')
- name: namesakes
  expression: >-
    variables.containers.map(container, container.?ports.orValue([])
    .filter(port, port.?name.orValue('') == variables.offered).size()).sum() -
    (!variables.undeclared && variables.containers[variables.candidates[0]]
    .ports[variables.matching[variables.candidates[0]][0]].?name.hasValue() ? 1 : 0)

# The sidecar's ports and the pod's grace, in seconds.
- name: listen
  expression: variables.annotations[?'{{ $prefix }}listen'].orValue('0.0.0.0:7070')
- name: admin
  expression: variables.annotations[?'{{ $prefix }}admin'].orValue('0.0.0.0:7071')
- name: addresses
  expression: >-
    [variables.listen, variables.admin].all(address, address.matches(':[1-9][0-9]{0,4}$') &&
    !address.startsWith('127.') && !address.startsWith('[::1]'))
- name: dataPort
  expression: >-
    variables.addresses ? int(variables.listen.substring(variables.listen.lastIndexOf(':') + 1)) : 0
- name: adminPort
  expression: >-
    variables.addresses ? int(variables.admin.substring(variables.admin.lastIndexOf(':') + 1)) : 0
- name: wish
  expression: variables.annotations[?'{{ $prefix }}grace'].orValue('60s')
- name: wishSeconds
  expression: >-
    variables.wish == '0' ? 0 :
    variables.wish.endsWith('ms') ?
      (int(variables.wish.substring(0, variables.wish.size() - 2)) + 999) / 1000 :
    int(variables.wish.substring(0, variables.wish.size() - 1)) *
      (variables.wish.endsWith('h') ? 3600 : variables.wish.endsWith('m') ? 60 : 1)
- name: has
  expression: variables.pod.spec.?terminationGracePeriodSeconds.orValue(30)
- name: grace
  expression: "variables.wishSeconds > variables.has ? variables.wishSeconds : variables.has"
- name: taken
  expression: >-
    variables.number in [variables.dataPort, variables.adminPort] || (variables.containers + variables.pod.spec.?initContainers.orValue([])).exists(container,
      container.?ports.orValue([]).exists(port,
        port.containerPort in [variables.dataPort, variables.adminPort]))
- name: after
  expression: variables.annotations[?'{{ $prefix }}after'].orValue('')
- name: place
  expression: >-
    variables.after == '' ? 0 :
    variables.pod.spec.?initContainers.orValue([]).map(container, container.name)
    .indexOf(variables.after) + 1

# What the sidecar asks of its node and may take of it: the chart's, and over that the pod's own,
# unless that does not fit.
{{- $entries := "transformMapEntry(index, entry, {entry.split('=')[0]: entry.split('=')[1]})" }}
{{- range $half := list "requests" "limits" }}
- name: {{ $half }}Default
  expression: >-
    '{{ include "ebbtide.quantities" (dict "context" $.context "half" $half) }}'.split(',')
    .filter(entry, entry != '')
- name: {{ $half }}Asked
  expression: >-
    '{{ $half }}' in variables.settings ?
    variables.annotations['{{ $prefix }}{{ $half }}'].split(',') : []
- name: {{ $half }}Wanted
  expression: >-
    (variables.{{ $half }}Default.filter(entry, !variables.{{ $half }}Asked.exists(asked,
      asked.startsWith(entry.split('=')[0] + '=')))
    + variables.{{ $half }}Asked).{{ $entries }}
{{- end }}
- name: resourceMisfit
  expression: >-
    {{- range $half := list "requests" "limits" }}
    variables.{{ $half }}Asked.exists(entry, !entry.matches('{{ $quantities }}') ||
      variables.{{ $half }}Asked.filter(other,
        other.startsWith(entry.split('=')[0] + '=')).size() > 1) ?
      'annotation {{ $prefix }}{{ $half }}: ' + variables.annotations['{{ $prefix }}{{ $half }}'] +
      ' does not fit: expected quantities of cpu, memory, ephemeral-storage as in cpu=100m,memory=128Mi, each of them once' :
    {{- end }}
    variables.limitsWanted.exists(name, name in variables.requestsWanted &&
      quantity(variables.limitsWanted[name])
      .isLessThan(quantity(variables.requestsWanted[name]))) ?
      'annotations {{ $prefix }}requests and limits: a limit is below what is requested' :
    ''
{{- range $half := list "requests" "limits" }}
- name: {{ $half }}
  expression: >-
    variables.resourceMisfit == '' ? variables.{{ $half }}Wanted :
    variables.{{ $half }}Default.{{ $entries }}
{{- end }}
- name: refusal
  expression: >-
    variables.pod.spec.?hostNetwork.orValue(false) ?
      'hostNetwork: the ports of the sidecar would be those of the node' :
    variables.pod.spec.?os.?name.orValue('linux') != 'linux' ||
    variables.pod.spec.?nodeSelector[?'kubernetes.io/os'].orValue('linux') == 'windows' ?
      'ebbtide runs on Linux' :
    variables.unknown.size() > 0 ?
      'no setting is called ' + string(variables.unknown[0]) +
      ' (annotation {{ $prefix }}' + string(variables.unknown[0]) + ')' :
    variables.misfits.size() > 0 ?
      'annotation {{ $prefix }}' + string(variables.misfits[0]) + ': ' +
      variables.annotations['{{ $prefix }}' + variables.misfits[0]] +
      ' does not fit; docs/settings.md says what does' :
    !variables.secretFits ?
      'annotation {{ $prefix }}secret: ' + variables.secret +
      ' does not fit: expected the name of a Secret in the namespace of the pod' :
    variables.unseen.size() > 0 ?
      'annotation {{ $prefix }}' + string(variables.unseen[0]) + ': ' +
      variables.annotations['{{ $prefix }}' + variables.unseen[0]] +
      ' does not fit: expected /etc/ebbtide/secret/KEY, where KEY is one of the Secret that the annotation {{ $prefix }}secret names' :
    !variables.found && variables.candidates.size() > 0 ?
      'several containers have the port ' + variables.name +
      '; those that are not the server\'s need another name' :
    !variables.found && variables.asked != '' ?
      'no container has the port ' + variables.asked + ' (annotation {{ $prefix }}port)' :
    !variables.found ?
      'no port is named mcp or http; say which one is the server\'s in the annotation {{ $prefix }}port' :
    !variables.addresses ?
      'the annotations {{ $prefix }}listen and admin expect a fixed port on all addresses, as in 0.0.0.0:7070' :
    variables.taken ?
      'port ' + string(variables.dataPort) + ' or ' + string(variables.adminPort) +
      ' is taken by a container; give ebbtide another, as in the annotation {{ $prefix }}listen: "0.0.0.0:8070"' :
    variables.wishSeconds > 86400 ?
      'annotation {{ $prefix }}grace: ' + variables.wish + ' is more than a day' :
    variables.after != '' && variables.place == 0 ?
      'annotation {{ $prefix }}after: no init container is called ' + variables.after :
    variables.namesakes > 0 ?
      'another port is called ' + variables.offered +
      ', which is what the sidecar\'s would be called: Services would lead past it' :
    variables.pod.spec.?volumes.orValue([]).exists(volume, volume.name == 'ebbtide-token') ?
      'a volume is called ebbtide-token already' :
    variables.secret != '' &&
    variables.pod.spec.?volumes.orValue([]).exists(volume, volume.name == 'ebbtide-secret') ?
      'a volume is called ebbtide-secret already' :
    ''
{{- end -}}

{{/* By the name of each setting a pattern for its values; src/config/value.rs decides in the end. */}}
{{- define "ebbtide.shapes" -}}
{{- $patterns := dict
  "URL" "^http://[^/@ ]+/?$"
  "ADDRESS" "^([0-9]{1,3}([.][0-9]{1,3}){3}|[[][0-9a-fA-F:.]+[]]):[0-9]{1,5}$"
  "DURATION" "^(0|[0-9]{1,8}(ms|s|m|h))$"
  "NUMBER" "^([1-9][0-9]{0,5}|1000000)$"
  "BYTES" "^[1-9][0-9]{3,6}$"
  "ANSWER" "^(jsonrpc|503)$"
  "REACH" "^(reopen|pin|off)$"
  "LEVEL" "^(error|warn|info|debug|trace)$"
  "FORMAT" "^(json|text)$"
  "FILE" "^.+$" -}}
{
{{- range $index, $setting := splitList " " (include "ebbtide.settings" . | replace "\n" " ") }}
{{- $of := splitList ":" $setting }}
{{- if $index }},{{ end }}
  '{{ index $of 0 }}': '{{ get $patterns (index $of 1) }}'
{{- end }}}
{{- end -}}

{{/* The settings that name a file. */}}
{{- define "ebbtide.files" -}}
{{- $files := list -}}
{{- range $setting := splitList " " (include "ebbtide.settings" . | replace "\n" " ") -}}
{{- if hasSuffix ":FILE" $setting -}}
{{- $files = append $files (trimSuffix ":FILE" $setting | squote) -}}
{{- end -}}
{{- end -}}
[{{ join ", " $files }}]
{{- end -}}

{{/* Every setting's name twice, for the flag and for its value. */}}
{{- define "ebbtide.flags" -}}
[
{{- range $index, $setting := splitList " " (include "ebbtide.settings" . | replace "\n" " ") }}
{{- $name := index (splitList ":" $setting) 0 }}
{{- if $index }},{{ end }}
  '{{ $name }}', '{{ $name }}'
{{- end }}]
{{- end -}}

{{/* Whether somebody put ebbtide into the pod already, by hand or by `ebbtide inject`. */}}
{{- define "ebbtide.isThere" -}}
({{ .pod }}.spec.containers + {{ .pod }}.spec.?initContainers.orValue([])).exists(container,
  container.name == 'ebbtide' || (container.?command.orValue([]).size() > 0 ?
  (container.command[0] == 'ebbtide' || container.command[0].endsWith('/ebbtide')) :
  container.?image.orValue('').matches('(^|/)ebbtide(:[^/@]*)?(@.*)?$') &&
  container.?args.orValue([]).size() > 0 && container.args[0] == 'run'))
{{- end -}}

{{/* The sidecar. Typed objects are known in mutations alone, so these are no variables. */}}
{{- define "ebbtide.sidecar" -}}
Object.spec.initContainers{
  name: 'ebbtide',
  image: '{{ include "ebbtide.image" . }}',
  restartPolicy: 'Always',
  args: variables.args,
  env: [
    {{- range $index, $env := list (list "POD_NAME" "name") (list "POD_NAMESPACE" "namespace") (list "POD_UID" "uid") }}
    {{- if $index }},{{ end }}
    Object.spec.initContainers.env{
      name: '{{ index $env 0 }}',
      valueFrom: Object.spec.initContainers.env.valueFrom{
        fieldRef: Object.spec.initContainers.env.valueFrom.fieldRef{
          fieldPath: 'metadata.{{ index $env 1 }}'}}}
    {{- end }}] + ('config.ebbtide.dev/admin' in variables.annotations ? [
    Object.spec.initContainers.env{
      name: 'EBBTIDE_ADMIN',
      value: variables.annotations['config.ebbtide.dev/admin']}] : []),
  ports: [
    Object.spec.initContainers.ports{
      name: variables.oldName == '' ? 'mcp' : variables.oldName,
      containerPort: variables.dataPort,
      ?hostPort: variables.port.?hostPort,
      ?hostIP: variables.port.?hostIP},
    Object.spec.initContainers.ports{
      name: 'ebbtide-admin',
      containerPort: variables.adminPort}],
  startupProbe: Object.spec.initContainers.startupProbe{
    httpGet: Object.spec.initContainers.startupProbe.httpGet{
      path: '/livez', port: variables.adminPort},
    periodSeconds: 1,
    failureThreshold: 30},
  livenessProbe: Object.spec.initContainers.livenessProbe{
    httpGet: Object.spec.initContainers.livenessProbe.httpGet{
      path: '/livez', port: variables.adminPort}},
  readinessProbe: Object.spec.initContainers.readinessProbe{
    httpGet: Object.spec.initContainers.readinessProbe.httpGet{
      path: '/readyz', port: variables.adminPort},
    periodSeconds: 2},
  lifecycle: Object.spec.initContainers.lifecycle{
    preStop: Object.spec.initContainers.lifecycle.preStop{
      httpGet: Object.spec.initContainers.lifecycle.preStop.httpGet{
        path: '/prestop/self', port: variables.adminPort}}},
  resources: Object.spec.initContainers.resources{
    requests: variables.requests,
    limits: variables.limits},
  securityContext: Object.spec.initContainers.securityContext{
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: Object.spec.initContainers.securityContext.capabilities{drop: ['ALL']},
    ?runAsNonRoot: variables.security.?runAsNonRoot.orValue(false) == true ?
      optional.none() : optional.of(true),
    ?runAsUser: variables.security.?runAsUser.orValue(-1) == 0 ?
      optional.of(65532) : optional.none(),
    ?seccompProfile:
      variables.security.?seccompProfile.?type.orValue('') in ['RuntimeDefault', 'Localhost'] ?
      optional.none() :
      optional.of(Object.spec.initContainers.securityContext.seccompProfile{
        type: 'RuntimeDefault'})},
  volumeMounts: [
    Object.spec.initContainers.volumeMounts{
      name: 'ebbtide-token',
      mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
      readOnly: true}] + (variables.secret == '' ? [] : [
    Object.spec.initContainers.volumeMounts{
      name: 'ebbtide-secret',
      mountPath: '/etc/ebbtide/secret',
      readOnly: true}])}
{{- end -}}

{{/* Its volume with the files of a Secret. */}}
{{- define "ebbtide.secret" -}}
Object.spec.volumes{
  name: 'ebbtide-secret',
  secret: Object.spec.volumes.secret{secretName: variables.secret}}
{{- end -}}

{{/* Its volume with a token of its own. */}}
{{- define "ebbtide.token" -}}
Object.spec.volumes{
  name: 'ebbtide-token',
  projected: Object.spec.volumes.projected{
    sources: [
      Object.spec.volumes.projected.sources{
        serviceAccountToken: Object.spec.volumes.projected.sources.serviceAccountToken{
          path: 'token', expirationSeconds: 3600}},
      Object.spec.volumes.projected.sources{
        configMap: Object.spec.volumes.projected.sources.configMap{
          name: 'kube-root-ca.crt',
          items: [Object.spec.volumes.projected.sources.configMap.items{
            key: 'ca.crt', path: 'ca.crt'}]}},
      Object.spec.volumes.projected.sources{
        downwardAPI: Object.spec.volumes.projected.sources.downwardAPI{
          items: [Object.spec.volumes.projected.sources.downwardAPI.items{
            path: 'namespace',
            fieldRef: Object.spec.volumes.projected.sources.downwardAPI.items.fieldRef{
              fieldPath: 'metadata.namespace'}}]}}]}}
{{- end -}}

{{/* SIGTERM stays away from the server until ebbtide has drained. */}}
{{- define "ebbtide.preStop" -}}
Object.spec.containers.lifecycle.preStop{
  httpGet: Object.spec.containers.lifecycle.preStop.httpGet{
    path: '/prestop', port: variables.adminPort}}
{{- end -}}
