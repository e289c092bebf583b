import { requestDigest, notAllowed } from './blob-routes.ts'
import type { Exchange } from './exchange.ts'
import { SpecError } from './spec-error.ts'
import { checkName } from './store.ts'
import type { Store } from './store.ts'
import type { UploadSession, UploadSessions } from './upload-sessions.ts'

export interface UploadContext {
  readonly store: Store
  readonly sessions: UploadSessions
  readonly name: string
}

/** `{name}/blobs/uploads/`: opens a session, or takes a whole blob (`?digest=`), or mounts one (`?mount=&from=`). */
export async function startUpload(exchange: Exchange, context: UploadContext): Promise<void> {
  if (exchange.method !== 'POST') throw notAllowed('POST')
  checkName(context.name)
  const mount = exchange.query('mount')
  const from = exchange.query('from')
  if (mount !== undefined && from !== undefined) {
    const digest = requestDigest(mount)
    if (await context.store.mountBlob(context.name, digest, from)) return created(exchange, context.name, digest)
  }
  const digest = exchange.query('digest')
  const wanted = digest === undefined ? undefined : requestDigest(digest)
  const session = await context.sessions.start(context.name)
  if (wanted === undefined) return accepted(exchange, session)
  try {
    await context.sessions.exclusively(session, () => receive(exchange, context.sessions, session))
  } catch (error) {
    await context.sessions.cancel(session) // nobody was told its address: it cannot be resumed
    throw error
  }
  await context.sessions.finish(session, wanted)
  return created(exchange, context.name, wanted)
}

/** `{name}/blobs/uploads/{id}`. */
export async function continueUpload(exchange: Exchange, context: UploadContext, id: string): Promise<void> {
  const { sessions } = context
  const session = sessions.find(context.name, id)
  switch (exchange.method) {
    case 'GET':
      return exchange.empty(204, position(session))
    case 'PATCH':
      await sessions.exclusively(session, () => receive(exchange, sessions, session))
      return accepted(exchange, session)
    case 'PUT': {
      const digest = requestDigest(exchange.query('digest') ?? '')
      await sessions.exclusively(session, async () => {
        await receive(exchange, sessions, session)
        await sessions.finish(session, digest)
      })
      return created(exchange, context.name, digest)
    }
    case 'DELETE':
      await sessions.exclusively(session, () => sessions.cancel(session))
      return exchange.empty(204)
    default:
      throw notAllowed('GET, PATCH, PUT, DELETE')
  }
}

/** Appends the body. With Content-Range it must go on exactly where the session stands (416 tells where), and be as long as it says. */
async function receive(exchange: Exchange, sessions: UploadSessions, session: UploadSession): Promise<void> {
  const header = exchange.header('content-range')
  const announced = header === undefined ? undefined : pieceRange(header, session)
  const start = session.size
  for await (const piece of exchange.body()) {
    if (announced !== undefined && session.size + piece.length > announced.end + 1)
      throw sizeError(session, 'the body is longer than its Content-Range')
    await sessions.append(session, piece)
  }
  if (announced !== undefined && session.size !== announced.end + 1) {
    throw sizeError(
      session,
      `the body has ${session.size - start} bytes, its Content-Range ${announced.end + 1 - start}`,
    )
  }
}

function pieceRange(header: string, session: UploadSession): { end: number } {
  const match = /^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/.exec(header.trim())
  if (match === null || Number(match[2]) < Number(match[1]))
    throw new SpecError('BLOB_UPLOAD_INVALID', `Content-Range ${JSON.stringify(header.slice(0, 100))} is none`)
  if (Number(match[1]) !== session.size)
    throw sizeError(session, `the piece starts at ${match[1]}, the upload stands at ${session.size}`)
  return { end: Number(match[2]) }
}

function sizeError(session: UploadSession, message: string): SpecError {
  return new SpecError('BLOB_UPLOAD_INVALID', message, {
    status: 416,
    headers: { ...position(session), connection: 'close' },
  })
}

function position(session: UploadSession): Record<string, string> {
  return {
    location: `/v2/${session.name}/blobs/uploads/${session.id}`,
    range: `0-${Math.max(0, session.size - 1)}`,
    'docker-upload-uuid': session.id,
  }
}

function accepted(exchange: Exchange, session: UploadSession): Promise<void> {
  return exchange.empty(202, position(session))
}

function created(exchange: Exchange, name: string, digest: string): Promise<void> {
  return exchange.empty(201, { location: `/v2/${name}/blobs/${digest}`, 'docker-content-digest': digest })
}
