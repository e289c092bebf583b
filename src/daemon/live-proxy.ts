import { isSchedulerEndpoint } from '../dragonfly/index.ts'
import { isProxyUrl, type ProxyOptions } from '../registry/index.ts'
import type { Config } from './config/schema.ts'
import { proxyOf } from './config/settings.ts'

/** What may change about a mount's proxy while it is used, and who is told what happens to it. */
export interface LiveProxy {
  /** An address that the API set, if one was; blank: no proxy from now on. */
  readonly url: () => string | undefined
  /** The endpoint of a Dragonfly scheduler that the API set, if one was; blank: none from now on. */
  readonly scheduler: () => string | undefined
  readonly onNotice: (text: string) => void
}

/** For programs that have no API and no log. */
export const FIXED_PROXY: LiveProxy = {
  url: () => undefined,
  scheduler: () => undefined,
  onNotice: () => undefined,
}

const MIN_PING_TIMEOUT_MS = 100
const PING_TIMEOUT_MS = 5_000

interface ProxiedConfig {
  readonly connect_timeout: number
  readonly proxy: {
    readonly url: string
    readonly ping_url: string
    readonly fallback: boolean
    readonly check_interval: number
    readonly check_pause_elapsed: number
    readonly use_http: boolean
    readonly dragonfly_scheduler_endpoint: string
  }
}

/** The proxy of a backend's table. Throws Error naming the key. */
export function proxyOptions({ proxy, connect_timeout: connectSeconds }: ProxiedConfig, live: LiveProxy): ProxyOptions {
  if (proxy.url !== '' && !isProxyUrl(proxy.url))
    throw new Error('"proxy.url" is no address of a proxy: write http://HOST:PORT or https://HOST:PORT')
  if (proxy.ping_url !== '' && !isProxyUrl(proxy.ping_url)) throw new Error('"proxy.ping_url" is no http(s) address')
  return {
    url: () => live.url() ?? proxy.url,
    scheduler: () => live.scheduler() ?? proxy.dragonfly_scheduler_endpoint,
    pingUrl: proxy.ping_url,
    fallback: proxy.fallback,
    checkIntervalMs: proxy.check_interval * 1000,
    checkPauseMs: proxy.check_pause_elapsed * 1000,
    pingTimeoutMs: Math.max(MIN_PING_TIMEOUT_MS, connectSeconds === 0 ? PING_TIMEOUT_MS : connectSeconds * 1000),
    useHttp: proxy.use_http,
    onNotice: live.onNotice,
  }
}

/** The mount's part of the dynamic settings. */
export function liveProxy(
  path: string,
  dynamic: ReadonlyMap<string, string>,
  onNotice: (text: string) => void,
): LiveProxy {
  return {
    url: () => dynamic.get(`${path}:${PROXY_KEY}`),
    scheduler: () => dynamic.get(`${path}:${SCHEDULER_KEY}`),
    onNotice,
  }
}

const PROXY_KEY = 'proxy_url'
/** The endpoint of a Dragonfly scheduler: as a setting, and in a configuration. */
const SCHEDULER_KEY = 'dragonfly_scheduler_endpoint'
const NO_PROXY =
  'dragonfly_scheduler_endpoint has no effect without "proxy.url": name the HTTP proxy that is used where no peer can be asked'

/** What is to be said about a configured scheduler that is of no use; undefined: nothing. */
export function schedulerNotice(config: Config): string | undefined {
  const proxy = proxyOf(config)
  const endpoint = proxy?.dragonfly_scheduler_endpoint ?? ''
  if (endpoint === '') return undefined
  return proxy?.url === '' ? NO_PROXY : badScheduler(endpoint)
}

/** The same for settings of the API. */
export function dynamicNotice(key: string, value: string): string | undefined {
  if (value === '') return undefined
  if (key === SCHEDULER_KEY) return badScheduler(value)
  if (key === PROXY_KEY && !isProxyUrl(value))
    return 'proxy_url is no address of a proxy: write http://HOST:PORT or https://HOST:PORT, or nothing for none'
  return undefined
}

function badScheduler(endpoint: string): string | undefined {
  return isSchedulerEndpoint(endpoint)
    ? undefined
    : 'dragonfly_scheduler_endpoint is no address of a scheduler: write http://HOST:PORT; until then requests go to the proxy'
}
