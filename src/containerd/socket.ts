import { randomBytes } from 'node:crypto'
import { chmod, chown, lstat, mkdir, rename, rm } from 'node:fs/promises'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { dirname, isAbsolute, join } from 'node:path'
import { ContainerdError } from './errors.ts'

export interface SocketOptions {
  /** Absolute; at most 107 bytes, which is Linux's bound. Its folder is made, for root alone, when it is missing. */
  readonly path: string
  /** Permission bits of the socket. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

const MAX_PATH_BYTES = 107
/** A server that lives takes a connection at once, even when its event loop is busy: the kernel does it. */
const ANSWER_MS = 1000

/**
 * Listens on a Unix socket. It has its mode and owner before its name can be found, and takes the place of a socket that nobody answers, never of anything else.
 * Throws ContainerdError `UNAVAILABLE`: somebody answers there, or the file cannot be made; `INVALID_ARGUMENT`: the path cannot be one of a socket.
 */
export async function listen(options: SocketOptions, onConnection: (socket: Socket) => void): Promise<Server> {
  const { path } = options
  const bytes = Buffer.byteLength(path)
  if (!isAbsolute(path) || bytes > MAX_PATH_BYTES)
    throw new ContainerdError(
      'INVALID_ARGUMENT',
      `cannot listen on ${path}: the path of a socket must be absolute and have at most ${MAX_PATH_BYTES} bytes, this one has ${bytes}; use a shorter one`,
    )
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await refuseLiving(path)
  // As short as any name can be that is nobody else's: its path must fit too.
  const hidden = join(dirname(path), `.${randomBytes(2).toString('hex')}`)
  const server = createServer(onConnection)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(hidden, resolve)
    })
    await chmod(hidden, options.mode)
    await giveTo(hidden, options)
    await rename(hidden, path)
    return server
  } catch (error) {
    server.close()
    await rm(hidden, { force: true })
    throw new ContainerdError('UNAVAILABLE', `cannot listen on ${path}: ${(error as Error).message}`, { cause: error })
  }
}

async function giveTo(path: string, { uid, gid }: SocketOptions): Promise<void> {
  try {
    await chown(path, uid, gid)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error
    throw new Error(`only root may give a socket to user ${uid}, group ${gid}; run this as root`, { cause: error })
  }
}

async function refuseLiving(path: string): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new ContainerdError('UNAVAILABLE', `cannot listen on ${path}: ${error.message}`, { cause: error })
  })
  if (found === undefined) return
  if (!found.isSocket())
    throw new ContainerdError(
      'UNAVAILABLE',
      `cannot listen on ${path}: something that is no socket has that name; move it away, or choose another address`,
    )
  if (await answers(path))
    throw new ContainerdError(
      'UNAVAILABLE',
      `cannot listen on ${path}: another process answers there; stop it, or choose another address`,
    )
}

/** Does anybody take connections on this socket? */
async function answers(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = createConnection(path)
    const end = (living: boolean) => () => {
      clearTimeout(timer)
      socket.destroy()
      resolve(living)
    }
    // A full queue is somebody's too.
    const timer = setTimeout(end(true), ANSWER_MS)
    socket.once('connect', end(true))
    socket.once('error', (error: NodeJS.ErrnoException) =>
      end(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT')(),
    )
  })
}
