/** For tests: a server of objects that verifies the signature of every request from what came over the wire, as the services' specifications say. */
import { createHash, createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { BucketKeys } from '../object-key.ts'

const MAX_SKEW_MS = 15 * 60_000

/** The code of what is wrong with a request, or undefined when it may pass. */
export type Verifier = (request: IncomingMessage) => string | undefined

/** Verifies AWS Signature Version 4 for one login. */
export function s3Verifier(region: string, keys: BucketKeys): Verifier {
  return (request) => {
    const { authorization = '', 'x-amz-date': time, 'x-amz-content-sha256': body } = headersOf(request)
    const match =
      /^AWS4-HMAC-SHA256 Credential=([^/,]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
        authorization,
      )
    if (match === null || time === undefined || body === undefined) return 'AccessDenied'
    const [, id, day = '', where, names = '', signature] = match
    if (id !== keys.accessKeyId) return 'InvalidAccessKeyId'
    if (where !== region || !time.startsWith(day)) return 'AuthorizationHeaderMalformed'
    const sentAt = Date.parse(time.replace(/^(\d{4})(\d\d)(\d\dT\d\d)(\d\d)(\d\dZ)$/, '$1-$2-$3:$4:$5'))
    if (!(Math.abs(Date.now() - sentAt) < MAX_SKEW_MS)) return 'RequestTimeTooSkewed'
    const signed = names.split(';')
    const must = Object.keys(headersOf(request)).filter((name) => name.startsWith('x-amz-') || name === 'range')
    if (!['host', ...must].every((name) => signed.includes(name))) return 'AccessDenied'
    if ((headersOf(request)['x-amz-security-token'] ?? '') !== keys.sessionToken) return 'InvalidToken'
    const lines = signed
      .map((name) => `${name}:${(headersOf(request)[name] ?? '').trim().replace(/ +/g, ' ')}\n`)
      .join('')
    const [path = '', query = ''] = (request.url ?? '').split('?')
    const canonical = [request.method, path, query, lines, names, body].join('\n')
    const text = ['AWS4-HMAC-SHA256', time, `${day}/${region}/s3/aws4_request`, hex(canonical)].join('\n')
    const step = (key: string | Buffer, part: string): Buffer => createHmac('sha256', key).update(part).digest()
    const key = step(step(step(step(`AWS4${keys.accessKeySecret}`, day), region), 's3'), 'aws4_request')
    return step(key, text).toString('hex') === signature ? undefined : 'SignatureDoesNotMatch'
  }
}

/** Verifies OSS's Signature Version 1 for one login. `resource` gives the resource that a request is about. */
export function ossVerifier(keys: BucketKeys, resource: (request: IncomingMessage) => string): Verifier {
  return (request) => {
    const headers = headersOf(request)
    const { authorization = '', date = '' } = headers
    const match = /^OSS ([^:]+):([A-Za-z0-9+/=]+)$/.exec(authorization)
    if (match === null) return 'AccessDenied'
    if (match[1] !== keys.accessKeyId) return 'InvalidAccessKeyId'
    if (!(Math.abs(Date.now() - Date.parse(date)) < MAX_SKEW_MS)) return 'RequestTimeTooSkewed'
    if ((headers['x-oss-security-token'] ?? '') !== keys.sessionToken) return 'InvalidSecurityToken'
    const own = Object.keys(headers)
      .filter((name) => name.startsWith('x-oss-'))
      .sort()
      .map((name) => `${name}:${headers[name] ?? ''}\n`)
    const text = `${request.method}\n\n\n${date}\n${own.join('')}${resource(request)}`
    const wanted = createHmac('sha1', keys.accessKeySecret).update(text).digest('base64')
    return wanted === match[2] ? undefined : 'SignatureDoesNotMatch'
  }
}

/** Lets only unsigned requests pass, as a public bucket behind a strict proxy would. */
export function unsignedOnly(request: IncomingMessage): string | undefined {
  return headersOf(request)['authorization'] === undefined ? undefined : 'AccessDenied'
}

/** A running server. Objects go by the decoded path of their URL. */
export interface ObjectStore extends AsyncDisposable {
  readonly port: number
  readonly objects: Map<string, Uint8Array>
  /** Every request, `GET /path bytes=…`, in order, refused ones too. */
  readonly requests: string[]
  readonly connections: () => { readonly now: number; readonly most: number }
  /** What the next requests are answered instead: a status and the code in its body. */
  readonly failures: Array<{
    readonly status: number
    readonly code?: string
    readonly headers?: Record<string, string>
  }>
}

/** Starts it on a free port of this machine. */
export async function startObjectStore(
  verify: Verifier,
  pathOf = (request: IncomingMessage) => request.url ?? '',
): Promise<ObjectStore> {
  const objects = new Map<string, Uint8Array>()
  const requests: string[] = []
  const failures: ObjectStore['failures'] = []
  const counts = { now: 0, most: 0 }
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url} ${request.headers.range ?? ''}`.trim())
    const failure = failures.shift()
    if (failure !== undefined) return refuse(response, failure.status, failure.code ?? '', failure.headers)
    const wrong = verify(request)
    if (wrong !== undefined) return refuse(response, 403, wrong)
    const object = objects.get(decodeURIComponent(pathOf(request)))
    if (object === undefined) return refuse(response, 404, 'NoSuchKey')
    sendObject(request, response, object)
  })
  server.on('connection', (socket) => {
    counts.now += 1
    counts.most = Math.max(counts.most, counts.now)
    socket.on('close', () => (counts.now -= 1))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    objects,
    requests,
    failures,
    connections: () => ({ ...counts }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Answers HEAD, and GET whole or with one range. */
export function sendObject(request: IncomingMessage, response: ServerResponse, object: Uint8Array): void {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
  if (match === null) {
    response.writeHead(200, { 'content-length': object.length })
    response.end(request.method === 'HEAD' ? undefined : object)
    return
  }
  const [from, last] = [Number(match[1]), Math.min(Number(match[2]), object.length - 1)]
  if (from >= object.length) return refuse(response, 416, 'InvalidRange')
  response.writeHead(206, {
    'content-length': last - from + 1,
    'content-range': `bytes ${from}-${last}/${object.length}`,
  })
  response.end(object.subarray(from, last + 1))
}

function refuse(response: ServerResponse, status: number, code: string, headers: Record<string, string> = {}): void {
  response.writeHead(status, { ...headers, 'content-type': 'application/xml' })
  response.end(
    code === '' ? '' : `<?xml version="1.0"?><Error><Code>${code}</Code><Message>no secret</Message></Error>`,
  )
}

function headersOf(request: IncomingMessage): Record<string, string | undefined> {
  return request.headers as Record<string, string | undefined> // none that these servers look at comes twice
}

function hex(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
