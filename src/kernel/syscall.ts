/**
 * System calls that Node does not offer, a row each. Opened at first use: a tool that never mounts does not pay for it.
 * Arguments on hot paths are numbers only: an object or a BigInt a call would make garbage.
 */
import { KernelError } from './errors.ts'
import { nativeModule } from './native-module/index.ts'

export type Native<A extends readonly unknown[]> = ((...args: A) => number) & {
  async(...args: [...A, (error: unknown, result: number) => void]): void
}
/** Text, or bytes ending in NUL. */
export type Path = string | Uint8Array

/** The calls of this room. A result of -1 means failure; `errno()` of the same thread tells why, until the next call. */
export interface LibC {
  errno(): number
  /** Address of a view's first byte; the caller keeps the view alive. */
  address(of: Uint8Array): number
  open: Native<[path: Path, flags: number, mode: number]>
  read: Native<[fd: number, address: number, size: number]>
  write: Native<[fd: number, address: number, size: number]>
  pread: Native<[fd: number, address: number, size: number, offset: number]>
  lseek: Native<[fd: number, offset: number, whence: number]>
  fallocate: Native<[fd: number, mode: number, offset: number, length: number]>
  copy_file_range: Native<[from: number, at: Uint8Array, to: number, into: Uint8Array, size: number, flags: number]>
  mount: Native<[source: Path, target: Path, type: string, flags: number, data: string]>
  umount2: Native<[target: Path, flags: number]>
  flock: Native<[fd: number, operation: number]>
  mknod: Native<[path: Path, mode: number, device: number]>
  lchown: Native<[path: Path, uid: number, gid: number]>
  utimensat: Native<[directory: number, path: Path, times: Uint8Array, flags: number]>
  llistxattr: Native<[path: Path, list: Uint8Array, size: number]>
  lgetxattr: Native<[path: Path, name: Path, value: Uint8Array, size: number]>
  lsetxattr: Native<[path: Path, name: Path, value: Uint8Array, size: number, flags: number]>
  getrlimit: Native<[resource: number, limits: Uint8Array]>
  setrlimit: Native<[resource: number, limits: Uint8Array]>
  madvise: Native<[address: number, size: number, advice: number]>
  socket: Native<[domain: number, type: number, protocol: number]>
  connect: Native<[socket: number, address: Uint8Array, size: number]>
  sendmsg: Native<[socket: number, message: Uint8Array, flags: number]>
  recvmsg: Native<[socket: number, message: Uint8Array, flags: number]>
  fcntl: Native<[fd: number, command: number, argument: number]>
  poll: Native<[fds: Uint8Array, count: number, timeoutMs: number]>
  memfd_create: Native<[name: string, flags: number]>
  prctl: Native<[option: number, argument: number, third: number, fourth: number, fifth: number]>
  fanotify_init: Native<[flags: number, eventFlags: number]>
  fanotify_mark: Native<[group: number, flags: number, mask: number, directory: number, path: Path]>
  gettid: Native<[]>
  tgkill: Native<[process: number, thread: number, signal: number]>
  sigaction: Native<[signal: number, action: Uint8Array, old: null]>
  dlsym: Native<[handle: number, name: string]>
  _exit: Native<[code: number]>
}

const SIGNATURES: Readonly<Record<Exclude<keyof LibC, 'errno' | 'address'>, string>> = {
  open: 'int open(const void*, int, int)',
  read: 'long read(int, uintptr_t, size_t)',
  write: 'long write(int, uintptr_t, size_t)',
  pread: 'long pread(int, uintptr_t, size_t, int64_t)',
  lseek: 'int64_t lseek(int, int64_t, int)',
  fallocate: 'int fallocate(int, int, int64_t, int64_t)',
  copy_file_range: 'long copy_file_range(int, void*, int, void*, size_t, uint)',
  mount: 'int mount(const void*, const void*, const char*, ulong, const char*)',
  umount2: 'int umount2(const void*, int)',
  flock: 'int flock(int, int)',
  mknod: 'int mknod(const void*, uint, uint64_t)',
  lchown: 'int lchown(const void*, uint, uint)',
  utimensat: 'int utimensat(int, const void*, const void*, int)',
  llistxattr: 'long llistxattr(const void*, void*, size_t)',
  lgetxattr: 'long lgetxattr(const void*, const void*, void*, size_t)',
  lsetxattr: 'int lsetxattr(const void*, const void*, const void*, size_t, int)',
  getrlimit: 'int getrlimit(int, void*)',
  setrlimit: 'int setrlimit(int, const void*)',
  madvise: 'int madvise(uintptr_t, size_t, int)',
  socket: 'int socket(int, int, int)',
  connect: 'int connect(int, const void*, uint)',
  sendmsg: 'long sendmsg(int, const void*, int)',
  recvmsg: 'long recvmsg(int, void*, int)',
  fcntl: 'int fcntl(int, int, long)',
  poll: 'int poll(void*, ulong, int)',
  memfd_create: 'int memfd_create(const char*, uint)',
  prctl: 'int prctl(int, ulong, ulong, ulong, ulong)',
  fanotify_init: 'int fanotify_init(uint, uint)',
  fanotify_mark: 'int fanotify_mark(int, uint, uint64_t, int, const void*)',
  gettid: 'int gettid()',
  tgkill: 'int tgkill(int, int, int)',
  sigaction: 'int sigaction(int, void*, void*)',
  dlsym: 'uintptr_t dlsym(uintptr_t, const char*)',
  _exit: 'void _exit(int)',
}

interface Koffi {
  load(path: string): { func(signature: string): Native<never> }
  errno(): number
  address(of: Uint8Array): bigint
}

let loaded: LibC | undefined

/** The C library of this process. Throws KernelError 'ENOSYS' where it cannot be opened. */
export function libc(): LibC {
  loaded ??= load()
  return loaded
}

/** Does now what the first call to Linux would do, which takes milliseconds, for a thread that has nothing else to do yet. What hinders it is told by that call. */
export function prepareCalls(): void {
  try {
    libc()
  } catch (error) {
    if (!(error instanceof KernelError)) throw error
  }
}

function load(): LibC {
  const koffi = nativeModule() as Koffi
  return {
    ...bindCalls(SIGNATURES),
    errno: () => koffi.errno(),
    address: (of: Uint8Array) => Number(koffi.address(of)),
  } as unknown as LibC // one row a key of LibC, by the type of SIGNATURES
}

/** Functions of the C library by their signatures. Throws KernelError 'ENOSYS' where it cannot be opened. */
export function bindCalls(signatures: Readonly<Record<string, string>>): Record<string, Native<never>> {
  const koffi = nativeModule() as Koffi
  let library: ReturnType<Koffi['load']>
  try {
    library = koffi.load('libc.so.6')
  } catch {
    throw new KernelError('dlopen', 38, 'libc.so.6 is not here; mounting needs a Linux with glibc')
  }
  return Object.fromEntries(Object.entries(signatures).map(([name, signature]) => [name, library.func(signature)]))
}

/** Turns a result of -1 into the error that errno tells. */
export function check(result: number, call: string, what: string): number {
  if (result < 0) throw new KernelError(call, libc().errno(), what)
  return result
}

/** A path as the kernel wants it: bytes and a NUL. Throws KernelError 'EINVAL' for a path that has a NUL inside. */
export function cPath(path: Path): Uint8Array {
  const bytes = typeof path === 'string' ? Buffer.from(path) : path
  if (bytes.includes(0)) throw new KernelError('path', 22, 'a path has a NUL byte inside')
  return Buffer.concat([bytes, Buffer.alloc(1)])
}

/** Runs a call on a thread of the pool, so that a slow kernel does not stop this one. */
export async function later<A extends readonly unknown[]>(
  call: Native<A>,
  name: string,
  what: string,
  ...args: A
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  call.async(...args, (_error, result) => {
    if (result < 0) reject(new KernelError(name, libc().errno(), what))
    else resolve(result)
  })
  return await promise
}
