/** The chart of `packaging/helm`: rendered, and checked for what a cluster would refuse; by helm itself where it is installed. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import * as v from 'valibot'
import { parse, parseAllDocuments } from 'yaml'
import { parseSettings } from '../src/snapshotter/settings/index.ts'
import { renderTemplate } from './helm-template.ts'

const CHART = join(import.meta.dirname, '../packaging/helm/nydus-node')
const read = (path: string): string => readFileSync(join(CHART, path), 'utf8')
const VALUES = parse(read('values.yaml')) as Record<string, unknown>
const META = parse(read('Chart.yaml')) as { name: string; version: string; appVersion: string; apiVersion: string }

const Name = v.pipe(v.string(), v.regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/), v.maxLength(63))
const Labels = v.record(v.string(), v.string())
const Metadata = v.strictObject({ name: Name, namespace: v.optional(Name), labels: Labels })
const Command = v.pipe(v.array(v.string()), v.minLength(1))
const Volume = v.union([
  v.strictObject({ name: Name, configMap: v.strictObject({ name: Name }) }),
  v.strictObject({ name: Name, hostPath: v.strictObject({ path: v.string(), type: v.literal('Directory') }) }),
])
const Container = v.strictObject({
  name: Name,
  image: v.pipe(v.string(), v.regex(/^[\w./:-]+:[\w.-]+$/)),
  imagePullPolicy: v.picklist(['Always', 'IfNotPresent', 'Never']),
  command: Command,
  lifecycle: v.strictObject({ preStop: v.strictObject({ exec: v.strictObject({ command: Command }) }) }),
  startupProbe: v.strictObject({
    exec: v.strictObject({ command: Command }),
    periodSeconds: v.number(),
    failureThreshold: v.number(),
  }),
  readinessProbe: v.strictObject({
    exec: v.strictObject({ command: Command }),
    periodSeconds: v.number(),
    timeoutSeconds: v.number(),
  }),
  resources: v.record(v.picklist(['requests', 'limits']), Labels),
  securityContext: v.strictObject({ privileged: v.literal(true) }),
  volumeMounts: v.array(v.strictObject({ name: Name, mountPath: v.string(), readOnly: v.optional(v.boolean()) })),
})
const DaemonSet = v.strictObject({
  apiVersion: v.literal('apps/v1'),
  kind: v.literal('DaemonSet'),
  metadata: Metadata,
  spec: v.strictObject({
    selector: v.strictObject({ matchLabels: Labels }),
    updateStrategy: v.strictObject({
      type: v.literal('RollingUpdate'),
      rollingUpdate: v.strictObject({ maxUnavailable: v.number() }),
    }),
    template: v.strictObject({
      metadata: v.strictObject({ labels: Labels, annotations: Labels }),
      spec: v.strictObject({
        serviceAccountName: Name,
        priorityClassName: v.literal('system-node-critical'),
        hostPID: v.literal(true),
        hostNetwork: v.literal(true),
        terminationGracePeriodSeconds: v.number(),
        imagePullSecrets: v.array(v.strictObject({ name: Name })),
        nodeSelector: Labels,
        tolerations: v.array(v.record(v.string(), v.string())),
        containers: v.pipe(v.array(Container), v.length(1)),
        volumes: v.array(Volume),
      }),
    }),
  }),
})
const ConfigMap = v.strictObject({
  apiVersion: v.literal('v1'),
  kind: v.literal('ConfigMap'),
  metadata: Metadata,
  data: Labels,
})
const ServiceAccount = v.strictObject({
  apiVersion: v.literal('v1'),
  kind: v.literal('ServiceAccount'),
  metadata: Metadata,
  automountServiceAccountToken: v.boolean(),
})
const RBAC = v.literal('rbac.authorization.k8s.io/v1')
const Role = v.strictObject({
  apiVersion: RBAC,
  kind: v.literal('ClusterRole'),
  metadata: Metadata,
  rules: v.array(
    v.strictObject({
      apiGroups: v.array(v.string()),
      resources: Command,
      verbs: v.array(v.picklist(['get', 'list', 'watch'])),
    }),
  ),
})
const Binding = v.strictObject({
  apiVersion: RBAC,
  kind: v.literal('ClusterRoleBinding'),
  metadata: Metadata,
  roleRef: v.strictObject({ apiGroup: v.string(), kind: v.literal('ClusterRole'), name: Name }),
  subjects: v.array(v.strictObject({ kind: v.literal('ServiceAccount'), name: Name, namespace: Name })),
})
const Any = v.variant('kind', [DaemonSet, ConfigMap, ServiceAccount, Role, Binding])

function rendered(values: Record<string, unknown>): Array<v.InferOutput<typeof Any>> {
  const scope = {
    Values: values,
    Release: { Name: 'lazy', Namespace: 'nydus-system' },
    Chart: { ...META, AppVersion: META.appVersion },
  }
  return readdirSync(join(CHART, 'templates')).flatMap((name) =>
    parseAllDocuments(renderTemplate(read(`templates/${name}`), scope))
      .map((document) => {
        assert.deepEqual(document.errors, [], name)
        return document.toJS() as unknown
      })
      .filter((document) => document !== null)
      .map((document) => v.parse(Any, document)),
  )
}

test('the chart becomes objects that a cluster takes, in all its ways', () => {
  const ways: ReadonlyArray<Record<string, unknown>> = [
    VALUES,
    { ...VALUES, kubernetesSecrets: { enable: true }, imagePullSecrets: [{ name: 'login' }] },
    {
      ...VALUES,
      host: {
        ...(VALUES['host'] as object),
        undoOnDelete: true,
        restartContainerd: false,
        containerdConfig: '/etc/other.toml',
      },
    },
  ]
  for (const values of ways) {
    const objects = rendered(values)
    const [set] = objects.filter((one) => one.kind === 'DaemonSet')
    const [files] = objects.filter((one) => one.kind === 'ConfigMap')
    assert.ok(set !== undefined && files !== undefined)
    const { containers, volumes, serviceAccountName } = set.spec.template.spec
    assert.deepEqual(containers[0]?.readinessProbe.exec.command.slice(-3), [
      'doctor',
      '--containerd-config',
      (values['host'] as { containerdConfig: string }).containerdConfig,
    ])
    assert.deepEqual(set.spec.selector.matchLabels, set.spec.template.metadata.labels)
    assert.deepEqual(
      containers[0]?.volumeMounts.map(({ name }) => name),
      volumes.map(({ name }) => name),
    )
    assert.ok(volumes.some((volume) => 'configMap' in volume && volume.configMap.name === files.metadata.name))
    assert.ok(objects.some((one) => one.kind === 'ServiceAccount' && one.metadata.name === serviceAccountName))
    assert.deepEqual(parseSettings(files.data['snapshotter.toml'] ?? '').warnings, [])
    assert.ok('device' in (JSON.parse(files.data['nydusd-config.json'] ?? '') as object))
    for (const name of ['install.sh', 'remove.sh']) {
      const { status, stderr } = spawnSync('sh', ['-n'], { input: files.data[name], encoding: 'utf8' })
      assert.equal(status, 0, `${name}: ${stderr}`)
    }
  }
  const secrets = (ways[1] && rendered(ways[1])) ?? []
  assert.deepEqual(
    secrets.filter((one) => one.kind === 'ClusterRole').map(({ rules }) => rules[0]?.resources),
    [['secrets']],
  )
  assert.ok(!rendered(VALUES).some((one) => one.kind === 'ClusterRole'))
})

test('the scripts of the chart install and remove by nydus-setup, as the values say', () => {
  const scripts = (values: Record<string, unknown>): Record<string, string> =>
    rendered(values).find((one) => one.kind === 'ConfigMap')?.data ?? {}
  assert.match(
    scripts(VALUES)['install.sh'] ?? '',
    /nydus-setup" --yes --containerd-config \/etc\/containerd\/config\.toml --restart$/m,
  )
  assert.doesNotMatch(scripts(VALUES)['remove.sh'] ?? '', /--undo/)
  const undo = { ...VALUES, host: { ...(VALUES['host'] as object), undoOnDelete: true } }
  assert.match(scripts(undo)['remove.sh'] ?? '', /\/opt\/nydus-node\/bin\/nydus-setup --undo --yes --restart$/m)
})

test("a change of the nodes' configurations makes their pods anew, and nothing else does", () => {
  const annotations = (values: Record<string, unknown>): Record<string, string> =>
    rendered(values).find((one) => one.kind === 'DaemonSet')?.spec.template.metadata.annotations ?? {}
  const before = annotations(VALUES)
  assert.notDeepEqual(annotations({ ...VALUES, snapshotter: 'version = 1' }), before)
  assert.notDeepEqual(annotations({ ...VALUES, nydusd: '{}' }), before)
  // It is set before the release is uninstalled: pods that were made anew would take everything back at once.
  const undo = { ...VALUES, host: { ...(VALUES['host'] as object), undoOnDelete: true } }
  assert.deepEqual(annotations(undo), before)
})

test('a pod is not ready before its version is installed, whatever runs on the node', () => {
  const objects = rendered(VALUES)
  const [container] = objects.find((one) => one.kind === 'DaemonSet')?.spec.template.spec.containers ?? []
  const folder = mkdtempSync(join(tmpdir(), 'helm-'))
  try {
    const here = (text: string): string => text.replaceAll('/run/installed', join(folder, 'installed'))
    const [program = '', ...args] = container?.startupProbe.exec.command ?? []
    const passes = (): boolean => spawnSync(program, args.map(here)).status === 0
    assert.equal(passes(), false)
    const script = objects.find((one) => one.kind === 'ConfigMap')?.data['install.sh'] ?? ''
    const [, afterSetup = ''] = script.split(/^nsenter .*$/m)
    assert.equal(spawnSync('sh', ['-c', here(afterSetup).replace('exec sleep infinity', '')]).status, 0)
    assert.equal(passes(), true)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('what the small renderer does not know is refused', () => {
  for (const text of [
    '{{ range .Values.a }}',
    '{{ if .Values.a }}',
    '{{ .Values.none }}',
    '{{ .Values.a | upper }}',
    '{{ end }}',
  ])
    assert.throws(() => renderTemplate(text, { Values: { a: 1 } }), text)
})

const noHelm = spawnSync('helm', ['version']).status === 0 ? false : 'helm is not installed'

test('helm lints the chart and renders the same', { skip: noHelm }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'helm-'))
  try {
    const { status, stdout } = spawnSync('helm', ['lint', '--strict', CHART], { encoding: 'utf8' })
    assert.equal(status, 0, stdout)
    writeFileSync(join(folder, 'v.yaml'), 'kubernetesSecrets: {enable: true}')
    const template = spawnSync(
      'helm',
      // A helm that is built from source takes the cluster for an old one.
      ['template', 'lazy', CHART, '-n', 'nydus-system', '--kube-version', '1.31.0', '-f', join(folder, 'v.yaml')],
      { encoding: 'utf8' },
    )
    assert.equal(template.status, 0, template.stderr)
    const objects = parseAllDocuments(template.stdout).map((document) => v.parse(Any, document.toJS()))
    const own = rendered({ ...VALUES, kubernetesSecrets: { enable: true } })
    const byKind = (all: ReadonlyArray<{ kind: string }>): unknown[] =>
      [...all].sort((a, b) => (a.kind < b.kind ? -1 : 1))
    assert.deepEqual(byKind(objects), byKind(own))
  } finally {
    rmSync(folder, { recursive: true })
  }
})
