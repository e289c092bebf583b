/** The ways in which a registry can be ill. */
import type { Ask, Misbehave } from './raw-registry.ts'
import { response } from './raw-registry.ts'

export interface FaultKind {
  readonly name: string
  /** What the read comes to while the registry is ill. */
  readonly end: 'bytes' | 'EIO'
  readonly fault: Misbehave
  /** It happens at the login. */
  readonly wantsToken: boolean
}

const HALF = 30_000

/** Does wrong what is so; the rest is answered well. */
function where(isSo: (ask: Ask) => boolean, act: (ask: Ask) => void): Misbehave {
  return (ask) => {
    const isIll = isSo(ask)
    if (isIll) act(ask)
    return isIll
  }
}

const blobOnly = (act: (ask: Ask) => void): Misbehave => where(({ isToken }) => !isToken, act)
const tokenOnly = (act: (ask: Ask) => void): Misbehave => where(({ isToken }) => isToken, act)
const once = (act: (ask: Ask) => void): Misbehave => where(({ nth }) => nth === 1, act)

const body = ({ server, from, to }: Ask): Buffer => server.blob.subarray(from, to + 1)
const says = (...lines: string[]): string => `${lines.join('\r\n')}\r\n\r\n`
const lengthOf = (ask: Ask): string => `Content-Length: ${body(ask).length}`
const status =
  (code: number, ...headers: string[]) =>
  (ask: Ask): void =>
    void ask.socket.write(response(code, '{"errors":[{"code":"ILL","message":"no"}]}', headers))
const redirect =
  (code: number, to: (ask: Ask) => string): ((ask: Ask) => void) =>
  (ask) =>
    status(code, `Location: ${to(ask)}`)(ask)

/** Writes a piece at a time, for as long as somebody is there. */
function drip(ask: Ask, bytes: Buffer, size: number, everyMs: number): void {
  let at = 0
  const timer = setInterval(() => {
    if (ask.socket.destroyed || at >= bytes.length) return clearInterval(timer)
    ask.socket.write(bytes.subarray(at, at + size))
    at += size
  }, everyMs)
  timer.unref()
}

function withHead(ask: Ask, lines: readonly string[], content: Buffer | string): void {
  ask.socket.write(ask.server.head(ask.from, ask.to, lines))
  ask.socket.write(content)
}

function chunked(content: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${content.length.toString(16)}\r\n`), content, Buffer.from('\r\n')])
}

function partly(ask: Ask, bytes: number): void {
  withHead(ask, [lengthOf(ask)], body(ask).subarray(0, bytes))
}

function flipped(ask: Ask): void {
  const content = Buffer.from(body(ask))
  content[5] = (content[5] ?? 0) ^ 1
  withHead(ask, [lengthOf(ask)], content)
}

type Row = readonly [name: string, end: FaultKind['end'], fault: Misbehave]

const CONNECTIONS: readonly Row[] = [
  ['takes the request and is silent', 'EIO', () => {}],
  ['hangs up on the request', 'EIO', ({ socket }) => void socket.end()],
  ['resets the connection', 'EIO', ({ socket }) => void socket.resetAndDestroy()],
  ['hangs up within the headers', 'EIO', ({ socket }) => void socket.end('HTTP/1.1 206 Partial Con')],
  [
    'sends headers that never end',
    'EIO',
    (ask) => drip(ask, Buffer.from(`HTTP/1.1 206 OK\r\nX: ${'x'.repeat(4000)}`), 1, 100),
  ],
  ['sends its headers late', 'bytes', (ask) => void setTimeout(() => ask.server.answer(ask), 500)],
  [
    'closes each connection after its answer',
    'bytes',
    ({ socket, server, from, to: last }) => void socket.end(server.part(from, last)),
  ],
  [
    'resets the connection in mid-body, once',
    'bytes',
    once((ask) => {
      partly(ask, HALF)
      setTimeout(() => ask.socket.resetAndDestroy(), 50)
    }),
  ],
]

const BODIES: readonly Row[] = [
  [
    'sends a body that takes for ever',
    'EIO',
    (ask) => {
      ask.socket.write(ask.server.head(ask.from, ask.to, [lengthOf(ask)]))
      drip(ask, body(ask), 10, 200)
    },
  ],
  ['stalls in mid-body, once', 'bytes', once((ask) => partly(ask, HALF))],
  ['stalls in every body', 'EIO', (ask) => partly(ask, 10)],
  [
    'ends the body early, once',
    'bytes',
    once((ask) => {
      partly(ask, HALF)
      ask.socket.end()
    }),
  ],
  [
    'ends every body early',
    'EIO',
    (ask) => {
      partly(ask, 10)
      ask.socket.end()
    },
  ],
  [
    'sends more than it announced',
    'bytes',
    (ask) => withHead(ask, [lengthOf(ask)], Buffer.concat([body(ask), Buffer.alloc(100)])),
  ],
  [
    'announces less than was asked for',
    'EIO',
    (ask) => withHead(ask, ['Content-Length: 10'], body(ask).subarray(0, 10)),
  ],
  [
    'announces more than was asked for',
    'EIO',
    (ask) => withHead(ask, [`Content-Length: ${body(ask).length + 9}`], body(ask)),
  ],
  [
    'tells no length',
    'bytes',
    (ask) => {
      withHead(ask, ['Connection: close'], body(ask))
      ask.socket.end()
    },
  ],
  [
    'sends chunks',
    'bytes',
    (ask) =>
      withHead(ask, ['Transfer-Encoding: chunked'], Buffer.concat([chunked(body(ask)), Buffer.from('0\r\n\r\n')])),
  ],
  ['sends chunks of no size', 'EIO', (ask) => withHead(ask, ['Transfer-Encoding: chunked'], 'zz\r\nnonsense\r\n')],
  [
    'sends chunks beyond the range',
    'bytes',
    (ask) =>
      withHead(ask, ['Transfer-Encoding: chunked'], Buffer.concat([chunked(body(ask)), chunked(Buffer.alloc(500))])),
  ],
  [
    'never ends its chunks',
    'bytes',
    (ask) => {
      withHead(ask, ['Transfer-Encoding: chunked'], chunked(body(ask)))
      setTimeout(() => ask.socket.end(), 100)
    },
  ],
  ['flips a bit, once', 'bytes', once(flipped)],
  ['flips a bit each time', 'EIO', flipped],
  [
    'has another blob under the name',
    'EIO',
    (ask) => withHead(ask, [lengthOf(ask)], Buffer.alloc(body(ask).length, 0xa5)),
  ],
  ['compresses what it sends', 'EIO', (ask) => withHead(ask, [lengthOf(ask), 'Content-Encoding: gzip'], body(ask))],
]

const RANGES: readonly Row[] = [
  [
    'ignores ranges',
    'bytes',
    ({ socket, server }) => {
      socket.write(says('HTTP/1.1 200 OK', `Content-Length: ${server.blob.length}`))
      socket.write(server.blob)
    },
  ],
  [
    'sends another range',
    'EIO',
    ({ socket, server, from, to: last }) => void socket.write(server.part(from + 1, last + 1)),
  ],
  [
    'sends a part of the range',
    'EIO',
    ({ socket, server, from, to: last }) => void socket.write(server.part(from, last - 1)),
  ],
  [
    'names no range',
    'EIO',
    (ask) => {
      ask.socket.write(says('HTTP/1.1 206 Partial Content', lengthOf(ask)))
      ask.socket.write(body(ask))
    },
  ],
  [
    'names an impossible range',
    'EIO',
    (ask) => {
      ask.socket.write(says('HTTP/1.1 206 Partial Content', lengthOf(ask), 'Content-Range: bytes 9-1/4'))
      ask.socket.write(body(ask))
    },
  ],
  ['says that the blob is shorter', 'EIO', status(416, 'Content-Range: bytes */10')],
]

const PROTOCOL: readonly Row[] = [
  ['speaks something else', 'EIO', ({ socket }) => void socket.write('220 mail.example ESMTP\r\n\r\n')],
  [
    'sends enormous headers',
    'EIO',
    ({ socket }) => void socket.write(says('HTTP/1.1 206 OK', `X-Much: ${'x'.repeat(200_000)}`)),
  ],
  [
    'speaks HTTP/1.0',
    'bytes',
    (ask) => {
      ask.socket.write(ask.server.head(ask.from, ask.to).replace('HTTP/1.1', 'HTTP/1.0'))
      ask.socket.end(body(ask))
    },
  ],
  [
    'hints before it answers',
    'bytes',
    (ask) => {
      ask.socket.write('HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n')
      ask.server.answer(ask)
    },
  ],
  [
    'sends answers that nobody asked for',
    'bytes',
    once((ask) => {
      ask.server.answer(ask)
      setTimeout(() => ask.socket.write(response(200, 'more')), 50)
    }),
  ],
]

const REDIRECTS: readonly Row[] = [
  ['redirects to itself (301)', 'EIO', redirect(301, ({ path }) => path)],
  ['redirects to and fro (302)', 'EIO', redirect(302, ({ path, nth }) => `${path}?${nth % 2}`)],
  ['redirects on and on (307)', 'EIO', redirect(307, ({ nth }) => `/v2/${nth}`)],
  ['redirects to nowhere', 'EIO', status(307)],
  ['redirects to another protocol', 'EIO', redirect(307, () => 'ftp://127.0.0.1/x')],
  ['redirects to a dead host', 'EIO', redirect(307, ({ server }) => server.elsewhere.dead)],
  ['redirects to a host that takes no connection', 'EIO', redirect(307, ({ server }) => server.elsewhere.hung)],
  ['redirects to a name that does not exist', 'EIO', redirect(307, () => 'http://nowhere.invalid/x')],
  ['redirects to TLS where none is spoken', 'EIO', redirect(307, ({ server }) => server.elsewhere.noTls)],
  ['redirects to a host that nobody trusts', 'EIO', redirect(307, ({ server }) => server.elsewhere.untrusted)],
]

const STATUSES: readonly Row[] = [
  ...[400, 401, 403, 404, 405, 410, 451, 500, 501, 502, 503].map(
    (code): Row => [`answers ${code}`, 'EIO', status(code)],
  ),
  ...[408, 500, 504].map((code): Row => [`answers ${code}, once`, 'bytes', once(status(code))]),
  [
    'answers 200 to what it does not have',
    'EIO',
    ({ socket }) => void socket.write(response(200, '<html>Sign in</html>')),
  ],
  ['asks to come again, once (429)', 'bytes', once(status(429, 'Retry-After: 1'))],
  ['asks to come again tomorrow (429)', 'EIO', status(429, 'Retry-After: 86400')],
  ['asks to come again at a time that is no time', 'EIO', status(503, 'Retry-After: never')],
  ['names no way to log in', 'EIO', status(401, 'WWW-Authenticate: Negotiate')],
  ['asks for a login in words without sense', 'EIO', status(401, 'WWW-Authenticate: Bearer realm="')],
  ['sends us to a token server that is none', 'EIO', status(401, 'WWW-Authenticate: Bearer realm="gopher://x/"')],
]

const TOKENS: readonly Row[] = [
  ['refuses every token', 'EIO', blobOnly(({ socket, server }) => void socket.write(server.challenge()))],
  ['has a token server that resets', 'EIO', tokenOnly(({ socket }) => void socket.resetAndDestroy())],
  ['has a token server that is silent', 'EIO', tokenOnly(() => {})],
  ['has a token server that answers 503', 'EIO', tokenOnly(status(503))],
  ['has a token server that refuses', 'EIO', tokenOnly(status(403))],
  ['has a token server that babbles', 'EIO', tokenOnly(({ socket }) => void socket.write(response(200, '{"tok')))],
  [
    'has a token server without tokens',
    'EIO',
    tokenOnly(({ socket }) => void socket.write(response(200, '{"token":""}'))),
  ],
  [
    'has a token server that sends too much',
    'EIO',
    tokenOnly(({ socket }) => void socket.write(response(200, ' '.repeat(3 << 20)))),
  ],
  [
    'gives tokens for other things',
    'EIO',
    tokenOnly(({ socket }) => void socket.write(response(200, '{"token":"bad"}'))),
  ],
  [
    'gives tokens that have expired',
    'bytes',
    tokenOnly(
      ({ socket }) =>
        void socket.write(response(200, '{"token":"good","expires_in":0,"issued_at":"2001-01-01T00:00:00Z"}')),
    ),
  ],
]

export const FAULT_KINDS: readonly FaultKind[] = [
  ...[...BODIES, ...CONNECTIONS, ...RANGES, ...PROTOCOL, ...REDIRECTS, ...STATUSES].map(([name, end, fault]) => ({
    name,
    end,
    fault,
    wantsToken: false,
  })),
  ...TOKENS.map(([name, end, fault]) => ({ name, end, fault, wantsToken: true })),
]
