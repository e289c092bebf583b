/** For tests: the kinds of servers that blobs are read from through a proxy. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  digestOf,
  fromPassword,
  parseReference,
  type ProxyOptions,
  RegistryClient,
  startRegistry,
} from '../../registry/index.ts'
import type { Backend } from '../backend.ts'
import { patience, pattern, sha256 } from '../conformance.ts'
import { httpProxyBackend } from '../http-proxy.ts'
import { ossBackend } from '../oss.ts'
import { registryBackend } from '../registry.ts'
import { withRetry } from '../retry.ts'
import { s3Backend } from '../s3.ts'
import { ossVerifier, s3Verifier, startObjectStore, unsignedOnly } from './object-store.ts'

export const BLOB = pattern(600_000)
export const ID = sha256(BLOB)
export const KEYS = { accessKeyId: 'AKIDEXAMPLE', accessKeySecret: 'secret', sessionToken: '' }
export const NETWORK = {
  skipVerify: false,
  ca: '',
  timeoutMs: 60_000,
  connectTimeoutMs: 60_000,
  headers: { 'x-own': 'mine' },
}
const FOUR_TRIES = { attempts: 4, baseDelayMs: 1, maxDelayMs: 1 }

export interface Place extends AsyncDisposable {
  /** A backend with retries as nydusd has them. */
  open(proxy: ProxyOptions): Backend
  /** Requests that reached the server. */
  count(): number
}

export function through(url: string | (() => string), more: Partial<ProxyOptions> = {}): ProxyOptions {
  return {
    url: typeof url === 'string' ? () => url : url,
    scheduler: () => '',
    pingUrl: '',
    fallback: true,
    checkIntervalMs: 5000,
    checkPauseMs: 300_000,
    pingTimeoutMs: 60_000,
    useHttp: false,
    onNotice: () => undefined,
    ...more,
  }
}

export async function readPart(backend: Backend, purpose: 'demand' | 'prefetch' = 'demand'): Promise<void> {
  const reader = await backend.open(ID)
  const into = Buffer.alloc(500_000)
  await reader.read(50_000, into, { ...patience(), purpose })
  assert.ok(into.equals(BLOB.subarray(50_000, 550_000)))
}

interface RegistryPlace extends Place {
  open(proxy: ProxyOptions, headers?: Readonly<Record<string, string>>): Backend
  redirect(to: string): void
}

export async function inRegistry(): Promise<RegistryPlace> {
  const root = await mkdtemp(join(tmpdir(), 'proxied-'))
  const auth = { kind: 'bearer', tokenLifeMs: 60_000, users: { ann: 'secret' } } as const
  const server = await startRegistry({ root, host: '127.0.0.1', port: 0, auth })
  const client = new RegistryClient({ credentials: fromPassword('ann', 'secret'), plainHttp: 'always' })
  const source = {
    digest: digestOf(BLOB),
    size: BLOB.length,
    open: async function* () {
      yield BLOB
    },
  }
  await client.repository(parseReference(`${server.host}/test/image`)).uploadBlob(source)
  await client.close()
  server.resetCounters()
  return {
    open: (proxy, headers = NETWORK.headers) =>
      registryBackend({
        host: server.host,
        repo: 'test/image',
        scheme: 'http',
        auth: Buffer.from('ann:secret').toString('base64'),
        retryBaseMs: 1,
        timeoutMs: NETWORK.timeoutMs,
        headers,
        proxy,
      }),
    redirect: (to) => server.fail({ match: { route: 'blob' }, times: 9, fault: { kind: 'redirect', to, status: 307 } }),
    count: () => server.counters().blob.requests,
    async [Symbol.asyncDispose]() {
      await server.close()
      await rm(root, { recursive: true })
    },
  }
}

export async function inStore(kind: 's3' | 'oss' | 'http-proxy'): Promise<Place> {
  const verify = {
    s3: s3Verifier('eu-1', KEYS),
    oss: ossVerifier(KEYS, ({ url }) => url ?? ''),
    'http-proxy': unsignedOnly,
  }[kind]
  const store = await startObjectStore(verify)
  store.objects.set(`/images/${ID}`, BLOB)
  const bucket = {
    scheme: 'http',
    endpoint: `127.0.0.1:${store.port}`,
    bucket: 'images',
    prefix: '',
    ...KEYS,
    ...NETWORK,
  }
  const make = {
    s3: (proxy: ProxyOptions) => s3Backend({ ...bucket, region: 'eu-1', proxy }),
    oss: (proxy: ProxyOptions) => ossBackend({ ...bucket, proxy }),
    'http-proxy': (proxy: ProxyOptions) =>
      httpProxyBackend({ ...NETWORK, addr: `http://${bucket.endpoint}`, path: 'images', proxy }),
  }[kind]
  return {
    open: (proxy) => withRetry(make(proxy), FOUR_TRIES),
    count: () => store.requests.length,
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  }
}

export const PLACES: ReadonlyArray<readonly [string, () => Promise<Place>]> = [
  ['registry', inRegistry],
  ['s3', () => inStore('s3')],
  ['oss', () => inStore('oss')],
  ['http-proxy', () => inStore('http-proxy')],
]
