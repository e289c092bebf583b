import { readFileSync } from 'node:fs'
import {
  type Backend,
  BackendMetrics,
  httpProxyBackend,
  isRemote,
  localfsBackend,
  type RegistryBackendOptions,
  registryBackend,
  withMetrics,
  withRetry,
} from '../backend/index.ts'
import { fromDockerConfig } from '../registry/index.ts'
import type { HttpProxyConfig, RegistryConfig } from './config/schema.ts'
import { DEFAULT_RETRIES, type MountSettings } from './config/settings.ts'
import { DaemonError, messageOf } from './errors.ts'
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

/**
 * The backend that a configuration describes. `currentAuth` gives the login that the API set later, if one was; without any the Docker client's logins serve.
 * Nothing is connected yet. Throws DaemonError 'BAD_CONFIG'.
 */
export function openSource(source: MountSettings['source'], currentAuth: () => string | undefined): MeasuredBackend {
  const metrics = new BackendMetrics(source.kind)
  try {
    switch (source.kind) {
      case 'localfs':
        return { backend: withRetry(withMetrics(localfsBackend(source), metrics), LOCAL_RETRY), metrics }
      case 'registry':
        return {
          backend: withMetrics(registryBackend(registryOptions(source.registry, currentAuth)), metrics),
          metrics,
        }
      case 'http-proxy':
        return { backend: httpProxyOf(source.httpProxy, metrics), metrics }
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

function httpProxyOf(of: HttpProxyConfig, metrics: BackendMetrics): Backend {
  const backend = httpProxyBackend({
    addr: of.addr,
    path: of.path,
    skipVerify: of.skip_verify,
    ca: of.ca_cert_files.map(readCertificates).join('\n'),
    timeoutMs: of.timeout * 1000,
    connectTimeoutMs: of.connect_timeout * 1000,
  })
  const attempts = 1 + (of.retry_limit === 0 ? DEFAULT_RETRIES : of.retry_limit)
  const delays = isRemote(of.addr) ? REMOTE_DELAYS : LOCAL_RETRY
  return withRetry(withMetrics(backend, metrics), { ...delays, attempts })
}

function registryOptions(of: RegistryConfig, currentAuth: () => string | undefined): RegistryBackendOptions {
  const ca = of.ca_cert_files.map(readCertificates).join('\n')
  const configured = of.auth?.trim() ?? ''
  if (configured !== '' && !/^[^:]*:/.test(Buffer.from(configured, 'base64').toString()))
    throw new Error('"backend.registry.auth" is not the base64 of USER:PASSWORD')
  return {
    host: of.host,
    repo: of.repo,
    scheme: of.scheme,
    auth: () => currentAuth() ?? (configured === '' ? undefined : configured),
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
    userAgent: `nydusd/${versionInfo().package_ver.slice(1)}`,
    headers: extraHeaders(),
  }
}

function extraHeaders(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      name.startsWith(HEADER_VARIABLE) && value !== undefined ? [[name.slice(HEADER_VARIABLE.length), value]] : [],
    ),
  )
}

function readCertificates(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`cannot read "ca_cert_files": ${messageOf(error)}`, { cause: error })
  }
}
