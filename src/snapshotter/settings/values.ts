/** Durations and sizes as Go programs write them. Source: docs/containerd-nydus-grpc.md, "Configuration". */

const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ['ns', 1e-6],
  ['us', 1e-3],
  ['µs', 1e-3],
  ['μs', 1e-3],
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
])
/** Longer ones are no durations anybody means; also what a timer can wait for. */
const MAX_MS = 2 ** 31 - 1

/** Milliseconds of `"1m30s"`, or of a whole number of nanoseconds; undefined for what is neither, negative or longer than 24 days. */
export function parseDuration(value: string | number): number | undefined {
  const ms = typeof value === 'number' ? (Number.isSafeInteger(value) ? value / 1e6 : Number.NaN) : goDuration(value)
  return ms >= 0 && ms <= MAX_MS ? ms : undefined
}

/** Milliseconds of a duration as Go writes it (`"1m30s"`), however long; NaN for what is none. */
export function goDuration(text: string): number {
  if (text === '0') return 0
  if (text.length > 64 || !/^\+?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.test(text)) return Number.NaN
  let sum = 0
  for (const [, amount, unit = ''] of text.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g))
    sum += Number(amount) * (UNIT_MS.get(unit) ?? Number.NaN)
  return sum
}

const POWERS: ReadonlyMap<string, number> = new Map([
  ['', 0],
  ['K', 1],
  ['M', 2],
  ['G', 3],
  ['T', 4],
  ['P', 5],
])

/**
 * Bytes of `"209715200"`, `"200MiB"`, `"200Mi"` or `"10%"` (of `totalBytes`); Infinity for `""`, which is no limit; undefined for
 * what cannot be read, is 0, or is more than can be counted.
 */
export function parseMemoryLimit(text: string, totalBytes: number): number | undefined {
  if (text === '') return Number.POSITIVE_INFINITY
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text)
  if (percent !== null) {
    const part = Number(percent[1])
    return part > 0 && part <= 100 ? Math.floor((totalBytes * part) / 100) : undefined
  }
  const amount = /^(\d{1,16}(?:\.\d+)?) ?(?:([KMGTP])iB?|B)?$/.exec(text)
  if (amount === null) return undefined
  const bytes = Math.floor(Number(amount[1]) * 1024 ** (POWERS.get(amount[2] ?? '') ?? 0))
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined
}

/** Host and port of a listening address: `":9110"`, `"127.0.0.1:9110"`, `"[::1]:9110"`; without a host every address. */
export function parseListenAddress(
  text: string,
): { readonly host: string | undefined; readonly port: number } | undefined {
  const parts = /^(\[[0-9a-fA-F:.%a-z]+\]|[^\s:[\]/]*):(\d{1,5})$/.exec(text)
  if (parts === null) return undefined
  const port = Number(parts[2])
  const host = (parts[1] ?? '').replace(/^\[|\]$/g, '')
  return port <= 65_535 ? { host: host === '' ? undefined : host, port } : undefined
}
