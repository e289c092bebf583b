/** System calls of this part of the room. A table of its own: who only mounts does not pay for it. */
import { nativeModule } from '../native-module/index.ts'
import { bindCalls, check, type Native } from '../syscall.ts'

interface Calls {
  socketpair: Native<[domain: number, type: number, protocol: number, ends: Uint8Array]>
  bind: Native<[socket: number, address: Uint8Array, size: number]>
  listen: Native<[socket: number, backlog: number]>
  accept4: Native<[socket: number, address: number, size: number, flags: number]>
  /** The argument is a number, or the address of a structure that the caller keeps alive. */
  ioctl: Native<[fd: number, request: number, argument: number]>
  mmap: Native<[address: number, size: number, protection: number, flags: number, fd: number, offset: number]>
  munmap: Native<[address: number, size: number]>
  memcpy: Native<[to: number, from: number, size: number]>
  eventfd: Native<[initial: number, flags: number]>
  epoll_create1: Native<[flags: number]>
  epoll_ctl: Native<[epoll: number, operation: number, fd: number, event: Uint8Array]>
  syscall: Native<[number: number, first: number]>
}

const SIGNATURES: Readonly<Record<keyof Calls, string>> = {
  socketpair: 'int socketpair(int, int, int, void*)',
  bind: 'int bind(int, const void*, uint)',
  listen: 'int listen(int, int)',
  accept4: 'int accept4(int, uintptr_t, uintptr_t, int)',
  ioctl: 'int ioctl(int, ulong, uintptr_t)',
  mmap: 'int64_t mmap(uintptr_t, size_t, int, int, int, int64_t)',
  munmap: 'int munmap(uintptr_t, size_t)',
  memcpy: 'uintptr_t memcpy(uintptr_t, uintptr_t, size_t)',
  eventfd: 'int eventfd(uint, int)',
  epoll_create1: 'int epoll_create1(int)',
  epoll_ctl: 'int epoll_ctl(int, int, int, const void*)',
  syscall: 'long syscall(long, long)',
}

/** Which events of a descriptor somebody waits for, or has. */
export interface PollEvents {
  readonly readable?: boolean
  readonly writable?: boolean
  readonly disconnect?: boolean
}

/** `status` is 0, or minus an errno: then a read tells the rest. */
type PollCallback = (status: number, events: Required<PollEvents>) => void

export interface PollHandle {
  start(events: PollEvents, callback: PollCallback): void
  stop(): void
  close(): void
}

interface Koffi {
  view(address: bigint, size: number): ArrayBuffer
  readonly node: {
    poll(fd: number, events: PollEvents, callback: PollCallback): PollHandle
  }
}

let bound: Calls | undefined
let koffi: Koffi | undefined

export function calls(): Calls {
  bound ??= bindCalls(SIGNATURES) as unknown as Calls // a row each, by the type of SIGNATURES
  return bound
}

function native(): Koffi {
  koffi ??= nativeModule() as Koffi
  return koffi
}

/** Native memory as a buffer. It must outlive every use. */
export function viewMemory(address: number, size: number): ArrayBuffer {
  return native().view(BigInt(address), size)
}

const EPOLL_CLOEXEC = 0o2000000
const EPOLL_CTL = { ADD: 1, DEL: 2 } as const
const EPOLL_EVENT_BYTES = 16

/** Made with the first watch, at the start, and kept: later there may be no descriptor left. */
let trial: number | undefined

/** Files and the like are always ready, and the kernel does not watch them: KernelError 'EPERM'. Others give us descriptors, and the library aborts the process for such a one. */
function checkWatchable(fd: number): void {
  trial ??= check(calls().epoll_create1(EPOLL_CLOEXEC), 'epoll_create1', 'nothing can be watched')
  const event = Buffer.alloc(EPOLL_EVENT_BYTES)
  const added = calls().epoll_ctl(trial, EPOLL_CTL.ADD, fd, event)
  check(added, 'epoll_ctl', `descriptor ${fd} is of a kind that cannot be watched`)
  calls().epoll_ctl(trial, EPOLL_CTL.DEL, fd, event)
}

/**
 * Calls back, on this thread's event loop, whenever one of the events is there. Its descriptor no longer waits in reads (O_NONBLOCK). The caller closes the handle, before the descriptor. Throws KernelError.
 * The library calls past Node: what is thrown would stay in the engine until it aborts the process, and promises would not go on before the next event of another kind.
 */
export function watch(fd: number, events: PollEvents, callback: PollCallback): PollHandle {
  checkWatchable(fd)
  const handle = native().node.poll(fd, events, safely(callback))
  return {
    start: (wanted, next) => handle.start(wanted, safely(next)),
    stop: () => handle.stop(),
    close: () => handle.close(),
  }
}

function safely(callback: PollCallback): PollCallback {
  return (status, events) => {
    try {
      callback(status, events)
    } catch (error) {
      setImmediate(() => {
        throw error
      })
    }
    planPromises()
  }
}

let isPlanned = false

/** Promises go on when a callback of Node's own has ended: this is one, and comes before the loop waits. */
function planPromises(): void {
  if (isPlanned) return
  isPlanned = true
  setImmediate(() => {
    isPlanned = false
  })
}
