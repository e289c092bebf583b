/** The supervisor's socket: state and device go there, and come from there. It listens only while it expects us. */
import { closeSync, readlinkSync } from 'node:fs'
import { connectUnix, KernelError, receiveDescriptors, sendDescriptor } from '../../kernel/index.ts'
import { DaemonError, messageOf } from '../errors.ts'

/** Everything together; below the half minute that clients of the API wait. */
const DEADLINE_MS = 10_000
/** More than 255 mounts with the largest configurations. */
const MAX_STATE_BYTES = 320 << 20
const FUSE_DEVICE = '/dev/fuse'

/** The state of a session, and its device, which whoever gets it closes. */
export interface HandedOver {
  readonly state: Buffer
  readonly device: number
}

/** Gives the session to the supervisor, who keeps it. Throws DaemonError 'HANDOVER'. */
export async function sendToSupervisor(path: string | undefined, state: Uint8Array, device: number): Promise<void> {
  await withSupervisor(path, 'SendFd', async (socket, leftMs) => {
    await sendDescriptor(socket, device, state, leftMs())
  })
}

/** Takes the session that the supervisor keeps. Throws DaemonError 'HANDOVER'. */
export async function receiveFromSupervisor(path: string | undefined): Promise<HandedOver> {
  const { data, descriptors } = await withSupervisor(path, 'RecvFd', (socket, leftMs) =>
    receiveDescriptors(socket, MAX_STATE_BYTES, leftMs()),
  )
  const [device, ...others] = descriptors
  for (const fd of others) closeSync(fd)
  if (device === undefined)
    throw new DaemonError('HANDOVER', `supervisor ${path} sends no descriptor: it has no session to give`, {
      wire: 'StorageBackendError(NoEnoughFds)',
    })
  if (readlinkSync(`/proc/self/fd/${device}`) === FUSE_DEVICE) return { state: data, device }
  closeSync(device)
  throw new DaemonError('HANDOVER', `supervisor ${path} sends a descriptor that is no ${FUSE_DEVICE}`, {
    wire: 'StorageBackendError(NoEnoughFds)',
  })
}

async function withSupervisor<T>(
  path: string | undefined,
  step: 'SendFd' | 'RecvFd',
  act: (socket: number, leftMs: () => number) => Promise<T>,
): Promise<T> {
  if (path === undefined)
    throw new DaemonError('HANDOVER', 'there is no supervisor: start with --supervisor and --id', {
      wire: 'MissingSupervisorPath',
    })
  const deadline = performance.now() + DEADLINE_MS
  const leftMs = (): number => deadline - performance.now()
  let socket: number | undefined
  try {
    socket = await connectUnix(path, leftMs())
    return await act(socket, leftMs)
  } catch (error) {
    if (!(error instanceof KernelError)) throw error
    const wire = `StorageBackendError(${socket === undefined ? 'CreateUnixStream' : step}(${osText(error)}))`
    throw new DaemonError('HANDOVER', `cannot use supervisor ${path}: ${messageOf(error)}`, { cause: error, wire })
  } finally {
    if (socket !== undefined) closeSync(socket)
  }
}

const KINDS: Readonly<Record<string, readonly [kind: string, text: string]>> = {
  ENOENT: ['NotFound', 'No such file or directory'],
  ECONNREFUSED: ['ConnectionRefused', 'Connection refused'],
  EACCES: ['PermissionDenied', 'Permission denied'],
  EPIPE: ['BrokenPipe', 'Broken pipe'],
  ECONNRESET: ['ConnectionReset', 'Connection reset by peer'],
  ETIMEDOUT: ['TimedOut', 'Connection timed out'],
}

/** As the original shows an error of the system. */
function osText({ code, errno }: KernelError): string {
  const [kind, text] = KINDS[code] ?? ['Uncategorized', code]
  return `Os { code: ${errno}, kind: ${kind}, message: ${JSON.stringify(text)} }`
}
