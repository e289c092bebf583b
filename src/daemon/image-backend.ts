import { readFileSync } from 'node:fs'
import {
  type Backend,
  BackendMetrics,
  httpProxyBackend,
  isRemote,
  localdiskBackend,
  localfsBackend,
  type NetworkOptions,
  ossBackend,
  type RegistryBackendOptions,
  registryBackend,
  s3Backend,
  withMetrics,
  withRetry,
} from '../backend/index.ts'
import { fromDockerConfig } from '../registry/index.ts'
import type { HttpProxyConfig, OssConfig, RegistryConfig, S3Config } from './config/schema.ts'
import { DEFAULT_RETRIES, type MountSettings } from './config/settings.ts'
import { DaemonError, messageOf } from './errors.ts'
import { FIXED_LOGIN, type LiveLogin } from './live-login.ts'
import { FIXED_PROXY, type LiveProxy, proxyOptions } from './live-proxy.ts'
import { versionInfo } from './version/index.ts'

/** A backend, and what it counts. */
export interface MeasuredBackend {
  readonly backend: Backend
  readonly metrics: BackendMetrics
}

/** Of what is on this machine. */
const LOCAL_RETRY = { attempts: 2, baseDelayMs: 20, maxDelayMs: 100 } as const
/** Waits of the registry's client. */
const REMOTE_DELAYS = { baseDelayMs: 100, maxDelayMs: 5_000 } as const
/** Extra headers for every request to a backend come from variables of this prefix. */
const HEADER_VARIABLE = 'NYDUS_HEADER_'
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
const OUR_HEADERS: ReadonlySet<string> = new Set(['host', 'range', 'content-length', 'connection', 'transfer-encoding'])
/** Where programs of the two services look for key, secret and token of a session. */
const S3_KEYS = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'] as const
const OSS_KEYS = ['OSS_ACCESS_KEY_ID', 'OSS_ACCESS_KEY_SECRET', 'OSS_SESSION_TOKEN'] as const

/**
 * The backend that a configuration describes. `login` is what the API set later, if it did; without any the Docker client's logins serve.
 * `proxy` is what may change about its proxy. Nothing is connected yet. Throws DaemonError 'BAD_CONFIG'.
 */
export function openSource(
  source: MountSettings['source'],
  login: LiveLogin = FIXED_LOGIN,
  proxy: LiveProxy = FIXED_PROXY,
): MeasuredBackend {
  const metrics = new BackendMetrics(source.kind === 's3' ? 'oss' : source.kind) // what upstream's clients know
  try {
    switch (source.kind) {
      case 'localfs':
        return { backend: withRetry(withMetrics(localfsBackend(source), metrics), LOCAL_RETRY), metrics }
      case 'registry':
        return {
          backend: withMetrics(registryBackend(registryOptions(source.registry, login, proxy)), metrics),
          metrics,
        }
      case 'http-proxy':
        return { backend: httpProxyOf(source.httpProxy, metrics, proxy), metrics }
      case 'localdisk':
        return { backend: withRetry(withMetrics(localdiskBackend(source), metrics), LOCAL_RETRY), metrics }
      case 'oss': {
        const { oss } = source
        const backend = ossBackend({ ...networkOf(oss, proxy), ...bucketOf(oss, OSS_KEYS) })
        return { backend: retried(backend, oss, metrics), metrics }
      }
      case 's3': {
        const { s3 } = source
        const backend = s3Backend({ ...networkOf(s3, proxy), ...bucketOf(s3, S3_KEYS), region: s3.region })
        return { backend: retried(backend, s3, metrics), metrics }
      }
      default:
        return source satisfies never
    }
  } catch (error) {
    throw new DaemonError('BAD_CONFIG', `cannot use the configuration: ${messageOf(error)}`, {
      cause: error,
      wire: `RAFS failed to handle request, Failed to create device: ${messageOf(error)}\``,
    })
  }
}

function httpProxyOf(of: HttpProxyConfig, metrics: BackendMetrics, proxy: LiveProxy): Backend {
  const backend = httpProxyBackend({ addr: of.addr, path: of.path, ...networkOf(of, proxy) })
  return retried(backend, of, metrics, isRemote(of.addr) ? REMOTE_DELAYS : LOCAL_RETRY)
}

type NetworkConfig = HttpProxyConfig | OssConfig | S3Config

function networkOf(of: NetworkConfig, proxy: LiveProxy): NetworkOptions {
  return {
    skipVerify: of.skip_verify,
    ca: of.ca_cert_files.map(readCertificates).join('\n'),
    timeoutMs: of.timeout * 1000,
    connectTimeoutMs: of.connect_timeout * 1000,
    headers: { 'user-agent': userAgent(), ...extraHeaders() },
    proxy: proxyOptions(of, proxy),
  }
}

function retried(
  backend: Backend,
  { retry_limit: limit }: NetworkConfig,
  metrics: BackendMetrics,
  delays: { readonly baseDelayMs: number; readonly maxDelayMs: number } = REMOTE_DELAYS,
): Backend {
  return withRetry(withMetrics(backend, metrics), { ...delays, attempts: 1 + (limit === 0 ? DEFAULT_RETRIES : limit) })
}

/** The keys of the configuration, else those that the environment gives to all programs, else none: a public bucket. */
function bucketOf(of: OssConfig | S3Config, [id, secret, token]: readonly [string, string, string]) {
  const configured = of.access_key_id !== '' || of.access_key_secret !== ''
  const { env } = process
  return {
    scheme: of.scheme,
    endpoint: of.endpoint,
    bucket: of.bucket_name,
    prefix: of.object_prefix,
    accessKeyId: configured ? of.access_key_id : (env[id] ?? ''),
    accessKeySecret: configured ? of.access_key_secret : (env[secret] ?? ''),
    sessionToken: configured ? of.session_token : (env[token] ?? ''),
  }
}

function registryOptions(of: RegistryConfig, login: LiveLogin, proxy: LiveProxy): RegistryBackendOptions {
  const ca = of.ca_cert_files.map(readCertificates).join('\n')
  const configured = of.auth?.trim() ?? ''
  if (configured !== '' && !/^[^:]*:/.test(Buffer.from(configured, 'base64').toString()))
    throw new Error('"backend.registry.auth" is not the base64 of USER:PASSWORD')
  return {
    host: of.host,
    repo: of.repo,
    scheme: of.scheme,
    auth: () => login.auth() ?? (configured === '' ? undefined : configured),
    newToken: () => login.token(),
    otherLogin: fromDockerConfig(),
    ...(of.registry_token === null ? {} : { registryToken: of.registry_token }),
    skipVerify: of.skip_verify,
    ...(ca === '' ? {} : { ca }),
    timeoutMs: of.timeout * 1000,
    connectTimeoutMs: of.connect_timeout * 1000,
    retryLimit: of.retry_limit === 0 ? DEFAULT_RETRIES : of.retry_limit,
    blobUrlScheme: of.blob_url_scheme,
    blobRedirectedHost: of.blob_redirected_host,
    mirrors: (of.mirrors ?? []).map((mirror) => ({
      url: mirror.host,
      headers: mirror.headers,
      failureLimit: mirror.failure_limit,
      cooldownMs: mirror.health_check_interval * 1000,
    })),
    userAgent: userAgent(),
    headers: extraHeaders(),
    proxy: proxyOptions(of, proxy),
  }
}

function userAgent(): string {
  return extraHeaders()['user-agent'] ?? `nydusd/${versionInfo().package_ver.slice(1)}`
}

/** Names in lower case; what no request can carry, or what says how it travels, is left out. */
function extraHeaders(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).flatMap(([variable, value = '']) => {
      const name = variable.startsWith(HEADER_VARIABLE) ? variable.slice(HEADER_VARIABLE.length).toLowerCase() : ''
      return HEADER_NAME.test(name) && HEADER_VALUE.test(value) && !OUR_HEADERS.has(name) ? [[name, value]] : []
    }),
  )
}

function readCertificates(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`cannot read "ca_cert_files": ${messageOf(error)}`, { cause: error })
  }
}
