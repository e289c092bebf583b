import { subscribe } from 'node:diagnostics_channel'

interface TracedRequest {
  readonly method: string
  readonly origin: string
  readonly path: string
  /** Names and values in turn, or one text. */
  readonly headers: readonly string[] | string
}

/** Whose values are shown to nobody; `hosts.toml` may have headers of any name. */
const SECRET = /auth|cookie|token|secret|password|key/i

/** Heads of requests and answers, as they go over the wire. Secrets are left out, also those in the addresses that registries redirect to. */
export function dumpHttp(write: (line: string) => void): void {
  subscribe('undici:request:create', (message) => {
    const { request } = message as { readonly request: TracedRequest }
    write(`> ${request.method} ${withoutQuery(`${request.origin}${request.path}`)}`)
    for (const line of headerLines(request.headers)) write(`> ${line}`)
  })
  subscribe('undici:request:headers', (message) => {
    const { request, response } = message as {
      readonly request: TracedRequest
      readonly response: { readonly statusCode: number; readonly headers: readonly Buffer[] }
    }
    write(`< ${response.statusCode} ${withoutQuery(`${request.origin}${request.path}`)}`)
    for (const line of headerLines(response.headers.map((part) => part.toString('latin1')))) write(`< ${line}`)
  })
}

/** Connections as they are made, and those that fail. */
export function traceHttp(write: (line: string) => void): void {
  interface Connected {
    readonly connectParams: { readonly host: string }
    readonly socket?: { readonly remoteAddress?: string; readonly remotePort?: number }
    readonly error?: Error
  }
  subscribe('undici:client:beforeConnect', (message) => {
    write(`DNS lookup of ${(message as Connected).connectParams.host}`)
  })
  subscribe('undici:client:connected', (message) => {
    const { connectParams, socket } = message as Connected
    write(`connected to ${connectParams.host} at ${socket?.remoteAddress}:${socket?.remotePort}`)
  })
  subscribe('undici:client:connectError', (message) => {
    const { connectParams, error } = message as Connected
    write(`cannot connect to ${connectParams.host}: ${error?.message}`)
  })
}

function headerLines(headers: readonly string[] | string): string[] {
  const pairs =
    typeof headers === 'string'
      ? headers.split('\r\n').map((line) => line.split(/: ?(.*)/, 2))
      : Array.from({ length: headers.length >> 1 }, (_, at) => [headers[2 * at], headers[2 * at + 1]])
  return pairs
    .filter(([name = '']) => name !== '')
    .map(([name = '', text = '']) => `${name}: ${SECRET.test(name) ? '(not shown)' : withoutQuery(text)}`)
}

/** Addresses of storage are signed in their queries. */
function withoutQuery(text: string): string {
  return /^https?:\/\//.test(text) ? text.replace(/\?.*$/, '?…') : text
}
