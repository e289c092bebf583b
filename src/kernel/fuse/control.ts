import { setTimeout as sleep } from 'node:timers/promises'
import { KernelError } from '../errors.ts'
import { check, libc } from '../syscall.ts'

/** A real-time signal that neither Node nor the C library uses. */
const WAKE_SIGNAL = 34 + 6
const SIGACTION_SIZE = 152

const STOP = 0
const FIRST_THREAD = 1

/** Shared between the thread that owns a session and the threads that serve it. */
export class FuseControl {
  readonly words: Int32Array<SharedArrayBuffer>

  /** For at most `threads` serving threads; or, on such a thread, over the words that it was sent. */
  constructor(of: number | Int32Array<SharedArrayBuffer>) {
    this.words = typeof of === 'number' ? new Int32Array(new SharedArrayBuffer(4 * (FIRST_THREAD + of))) : of
  }

  get isStopping(): boolean {
    return Atomics.load(this.words, STOP) !== 0
  }

  /** A serving thread tells where signals reach it; 0 when it leaves. */
  announce(worker: number, thread: number): void {
    Atomics.store(this.words, FIRST_THREAD + worker, thread)
  }

  /** Makes serving threads that wait for a request look up from it, once. One that is about to wait may not notice. */
  wake(): void {
    installWakeHandler()
    for (const thread of this.words.subarray(FIRST_THREAD))
      if (thread > 0) libc().tgkill(process.pid, thread, WAKE_SIGNAL)
  }

  /**
   * Makes all serving threads leave their loop, each after the request in hand, and waits until they have. The mount stays, and unread requests stay queued in
   * the kernel. Throws KernelError 'ETIMEDOUT' when a thread does not come.
   */
  async stop(timeoutMs: number): Promise<void> {
    installWakeHandler()
    Atomics.store(this.words, STOP, 1)
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const threads = [...this.words.subarray(FIRST_THREAD)].filter((thread) => thread > 0)
      if (threads.length === 0) return
      if (performance.now() > deadline)
        throw new KernelError('tgkill', 110, `${threads.length} FUSE threads did not stop in ${timeoutMs} ms`)
      // the signal may come between the test of the flag and the read, hence again and again
      for (const thread of threads) libc().tgkill(process.pid, thread, WAKE_SIGNAL)
      await sleep(1)
    }
  }
}

/**
 * A signal handler that does nothing and does not restart calls: what a blocked read needs to come back with EINTR. A harmless function of the C library
 * serves as handler, since no JavaScript may run there.
 */
function installWakeHandler(): void {
  const action = Buffer.alloc(SIGACTION_SIZE)
  action.writeBigUInt64LE(BigInt(libc().dlsym(0, 'abs')), 0)
  check(libc().sigaction(WAKE_SIGNAL, action, null), 'sigaction', 'cannot prepare the signal that wakes FUSE threads')
}
