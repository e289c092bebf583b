import type { Log } from '../log/index.ts'
import type { ServedImages, ShownImages } from './daemons.ts'
import { type Handle, readBody, type RunningHttp, sendText, serveUnix } from './http-server.ts'
import { type Answer, failure, refusal, type Route, ROUTES } from './routes.ts'

export interface ControllerOptions {
  readonly address: string
  readonly uid: number
  readonly gid: number
  readonly images: ServedImages
  readonly kernelImages?: ShownImages | undefined
  readonly log: Log
}

/** The system API on its socket. Throws ContainerdError when it cannot listen. */
export async function startController({
  address,
  uid,
  gid,
  images,
  kernelImages,
  log,
}: ControllerOptions): Promise<RunningHttp> {
  const answer = async (route: Route, id: string, body: string, signal: AbortSignal): Promise<Answer> => {
    try {
      return await route.handle({ images, kernelImages, body, id, signal })
    } catch (error) {
      log.warn(`system API: ${route.method} ${route.path}: ${(error as Error).message}`)
      return failure(error)
    }
  }
  const handle: Handle = async (request, response, signal) => {
    const path = (request.url ?? '').replace(/\?.*/s, '')
    const found = ROUTES.map((route) => ({ route, id: idIn(route.path, path) })).filter(({ id }) => id !== undefined)
    const { route, id = '' } = found.find((one) => one.route.method === request.method) ?? {}
    if (route === undefined) {
      request.resume()
      return send(
        response,
        found.length === 0 ? refusal(404, 'there is no such route') : refusal(405, 'another method is wanted'),
      )
    }
    const body = await readBody(request)
    send(response, body === undefined ? refusal(413, 'the body is too long') : await answer(route, id, body, signal))
  }
  const server = await serveUnix({ path: address, uid, gid }, handle)
  log.info(`the system API is at ${address}`)
  return server
}

/** What stands in a path where the pattern has `{id}`, '' where it has none; undefined when they differ. */
function idIn(pattern: string, path: string): string | undefined {
  const [before = '', after] = pattern.split('{id}')
  if (after === undefined) return pattern === path ? '' : undefined
  const id = path.slice(before.length, path.length - after.length)
  const fits = path.startsWith(before) && path.endsWith(after) && path.length > before.length + after.length
  return fits && !id.includes('/') ? id : undefined
}

function send(response: Parameters<Handle>[1], { status, body }: Answer): void {
  if (body !== undefined) return sendText(response, status, 'application/json', JSON.stringify(body))
  response.writeHead(status, { 'Content-Length': 0 })
  response.end()
}
