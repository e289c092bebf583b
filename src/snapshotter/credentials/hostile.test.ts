/** Whatever comes from plugins, secrets and files: it is read or refused with a code, and its text is in no message. */
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  anything,
  asyncProperty,
  assert as check,
  constantFrom,
  dictionary,
  integer,
  jsonValue,
  object,
  oneof,
  property,
  record,
  string,
} from 'fast-check'
import { SnapshotterError } from '../errors.ts'
import { credentialOfBase64 } from './credential.ts'
import { imageNameOf } from './image-name.ts'
import { parsePluginAnswer } from './kubelet/plugin-answer.ts'
import { readPluginConfig } from './kubelet/plugin-config.ts'
import { loginsOf } from './kubernetes/docker-secret.ts'
import { loadKubeAccess } from './kubernetes/kube-config.ts'
import { PullCredentials } from './pull-credentials.ts'
import { recordedLog, SECRET, temporaryFolder } from './testing.ts'

const VERSION = 'credentialprovider.kubelet.k8s.io/v1'
/** Values where texts belong, and texts where values do; secrets among them. */
const value = oneof(constantFrom(SECRET, null, 0, -1, '', '__proto__', VERSION, 'Image', '10m', [], {}), jsonValue())

function refuses(act: () => unknown, ...codes: readonly string[]): void {
  try {
    act()
  } catch (error) {
    isRefusal(error, codes)
  }
}

function isRefusal(error: unknown, codes: readonly string[]): void {
  assert.ok(error instanceof SnapshotterError, String(error))
  assert.ok(codes.includes(error.code), error.code)
  assert.ok(!error.message.includes(SECRET), error.message)
}

test('answers of plugins', () => {
  const answer = record(
    {
      apiVersion: oneof(constantFrom(VERSION), value),
      cacheKeyType: value,
      cacheDuration: value,
      auth: oneof(value, dictionary(string(), value)),
    },
    { requiredKeys: [] },
  )
  check(
    property(oneof(answer, value), (given) =>
      refuses(() => parsePluginAnswer(JSON.stringify(given), 'plugin'), 'UNAVAILABLE'),
    ),
  )
  check(property(string(), (text) => refuses(() => parsePluginAnswer(text, 'plugin'), 'UNAVAILABLE')))
})

test('secrets of Kubernetes', () => {
  const docker = oneof(
    value,
    record({
      auths: oneof(
        value,
        dictionary(string(), oneof(value, record({ auth: value, username: value, password: value }))),
      ),
    }),
  )
  check(
    property(docker, value, (config, type) => {
      const data = { '.dockerconfigjson': Buffer.from(JSON.stringify(config) ?? '').toString('base64') }
      for (const each of [type, 'kubernetes.io/dockerconfigjson']) loginsOf({ type: each, data, metadata: {} })
    }),
  )
  check(property(object(), (secret) => void loginsOf(secret)))
})

test('texts that may be base64 or names of images', () => {
  check(property(string(), (text) => void [credentialOfBase64(text), imageNameOf(text)]))
})

test('files: the kubelet’s, kubeconfig, and what we kept', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'file')
  const named = (kind: string, of: typeof value) =>
    record({ name: constantFrom('a', 'b'), [kind]: oneof(of, dictionary(string(), value)) })
  const kube = record({
    'current-context': constantFrom('a', 'c'),
    contexts: oneof(value, constantFrom([{ name: 'a', context: { cluster: 'a', user: 'b' } }])),
    clusters: oneof(
      value,
      named('cluster', value).map((each) => [each]),
    ),
    users: oneof(
      value,
      named('user', value).map((each) => [each]),
    ),
    providers: oneof(
      value,
      record({
        name: oneof(constantFrom('plugin', '../x', ''), integer()),
        apiVersion: value,
        matchImages: value,
        defaultCacheDuration: value,
        env: value,
        args: value,
      }).map((each) => [each]),
    ),
    images: oneof(
      value,
      record({ image: value, username: value, password: value, image_id: value }).map((each) => [each]),
    ),
  })
  await check(
    asyncProperty(oneof(kube, value, anything()), async (given) => {
      await writeFile(
        path,
        JSON.stringify(given, (_, each: unknown) => (typeof each === 'bigint' ? String(each) : each)) ?? '',
      )
      const log = recordedLog()
      for (const act of [
        () => loadKubeAccess({ path, env: {} }),
        () => readPluginConfig(path, (line) => log.warn(line)),
        () => PullCredentials.open(path, log),
      ])
        try {
          await act()
        } catch (error) {
          isRefusal(error, ['BAD_CONFIG'])
        }
    }),
    { numRuns: 60 },
  )
})
