import { isProxyUrl, type ProxyOptions } from '../registry/index.ts'
import type { Config } from './config/schema.ts'
import { proxyOf } from './config/settings.ts'

/** What may change about a mount's proxy while it is used, and who is told what happens to it. */
export interface LiveProxy {
  /** An address that the API set, if one was; blank: no proxy from now on. */
  readonly url: () => string | undefined
  readonly onNotice: (text: string) => void
}

/** For programs that have no API and no log. */
export const FIXED_PROXY: LiveProxy = { url: () => undefined, onNotice: () => undefined }

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
  }
}

/** The proxy of a backend's table. Throws Error naming the key. */
export function proxyOptions({ proxy, connect_timeout: connectSeconds }: ProxiedConfig, live: LiveProxy): ProxyOptions {
  if (proxy.url !== '' && !isProxyUrl(proxy.url))
    throw new Error('"proxy.url" is no address of a proxy: write http://HOST:PORT or https://HOST:PORT')
  if (proxy.ping_url !== '' && !isProxyUrl(proxy.ping_url)) throw new Error('"proxy.ping_url" is no http(s) address')
  return {
    url: () => live.url() ?? proxy.url,
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
  return { url: () => dynamic.get(`${path}:${PROXY_KEY}`), onNotice }
}

const PROXY_KEY = 'proxy_url'
/** The endpoint of a Dragonfly scheduler: as a setting, and in a configuration. */
const SCHEDULER_KEY = 'dragonfly_scheduler_endpoint'
const NO_SCHEDULER =
  'dragonfly_scheduler_endpoint has no effect of its own: peers are not found through a scheduler here; name the HTTP proxy of a Dragonfly client (dfdaemon) in "proxy.url", which every request then goes through'

/** What is to be said about a setting that is there and has no effect; undefined: nothing. */
export function schedulerNotice(config: Config): string | undefined {
  return (proxyOf(config)?.dragonfly_scheduler_endpoint ?? '') === '' ? undefined : NO_SCHEDULER
}

/** The same for settings of the API. */
export function dynamicNotice(key: string, value: string): string | undefined {
  if (key === SCHEDULER_KEY && value !== '') return NO_SCHEDULER
  if (key === PROXY_KEY && value !== '' && !isProxyUrl(value))
    return 'proxy_url is no address of a proxy: write http://HOST:PORT or https://HOST:PORT, or nothing for none'
  return undefined
}
